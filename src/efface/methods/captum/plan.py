"""Choice of a class of Captum, and the checks of its settings that need no image."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from efface.base.shown import shown
from efface.base.types import TargetScore
from efface.methods.adapters import nearest
from efface.plug.call import Call

Settings = Mapping[str, Any] | None

_DRAWING = {"GradientShap", "LayerGradientShap", "Lime", "KernelShap", "ShapleyValueSampling", "NoiseTunnel"}
_REFUSED = {
    "Neuron": "explains a neuron, not a class",
    "FeaturePermutation": "shuffles the images of a batch, so that a map depends on the other images",
    "DataLoader": "needs a data loader",
    "LLM": "explains language models",
    "LimeBase": "needs functions; use Lime, the same method with functions of its own",
}
_OURS = {
    *("self", "model", "forward_func", "layer", "device_ids", "attribution_method"),
    *("inputs", "target", "additional_forward_args", "return_convergence_delta", "kwargs"),
    *("internal_batch_size", "perturbations_per_eval"),  # computed from `max_batch`
}
_MOST_FEATURES = 9  # 9! = 362,880 orders; from 10 on Captum warns


@dataclass(frozen=True)
class CaptumMethod:
    """A class of Captum, and the facts about it that need no image."""

    outer: Any
    inner: Any
    """The class inside NoiseTunnel; else the same as `outer`."""
    explains_layer: bool
    takes: frozenset[str]
    """The keywords of the `attribute` of both classes."""
    init: dict[str, Any]
    attribute: dict[str, Any]
    cells: int | None

    @property
    def name(self) -> str:
        return str(self.inner.__name__)

    @property
    def draws(self) -> bool:
        return bool({self.name, self.outer.__name__} & _DRAWING)

    @property
    def wants_layer(self) -> bool:
        return "layer" in inspect.signature(self.inner.__init__).parameters

    @property
    def compares(self) -> bool:
        """Return True if the class takes a distribution of baselines."""
        return self.name.endswith(("DeepLiftShap", "GradientShap"))

    def made(self, score: nn.Module, layer: nn.Module | None) -> Any:
        """Return the explainer for the score, and for the layer if the class explains one."""
        explainer = self.inner(score, *([] if layer is None else [layer]), **self.init)
        return explainer if self.outer is self.inner else self.outer(explainer)

    def least(self, settings: dict[str, Any]) -> int:
        """Return the number of rows that one image needs in one pass."""
        if self.name.endswith("DeepLiftShap"):
            return 2 * len(settings["baselines"])
        return 2 if self.name.endswith("DeepLift") or self.name == "LayerConductance" else 1

    def limits(self, images: int, max_batch: int, settings: dict[str, Any]) -> dict[str, int]:
        """Return `max_batch` as the settings of Captum that limit a pass."""
        count = images * int(settings.get("nt_samples_batch_size", 1))
        words = {
            "internal_batch_size": max(max_batch, count * self.least(settings)),  # Captum warns if it is less
            "perturbations_per_eval": max(1, max_batch // count),
        }
        return {word: limit for word, limit in words.items() if word in self.takes}


def captum_method(
    algorithm: str,
    around: str | None,
    init: Settings,
    attribute: Settings,
    *,
    layer: str | None,
    cells: int | None,
    score: TargetScore,
) -> CaptumMethod:
    """Return the class and its checked settings. ValueError: the settings are wrong for every network and image."""
    attr = _captum()
    outer = inner = _found(attr, algorithm)
    if algorithm == "NoiseTunnel":
        if around in (None, algorithm):
            raise ValueError(f"around is {shown(around)}; NoiseTunnel expects an inner class, such as Saliency")
        inner = _found(attr, str(around))
    elif around is not None:
        raise ValueError(f"around is {shown(around)}, but {algorithm} has no inner class; only NoiseTunnel has one")
    takes = {name for kind in (outer, inner) for name in inspect.signature(kind.attribute).parameters}
    method = CaptumMethod(
        outer,
        inner,
        issubclass(inner, attr.LayerAttribution),
        frozenset(takes),
        _accepted("init", inner.__name__, init, set(inspect.signature(inner.__init__).parameters)),
        _accepted("attribute", algorithm, attribute, takes),
        cells,
    )
    if layer is not None and not method.wants_layer:
        raise ValueError(f"layer is {shown(layer)}, but {method.name} explains no layer: leave `layer` out")
    if score != "logit" and any(word in method.name for word in ("DeepLift", "LRP")):
        raise ValueError(
            f"score is {shown(score)}, but the rules of {method.name} start at the logit; expected score='logit'"
        )
    if method.compares and "baselines" not in method.attribute and "DeepLift" in method.name:
        raise ValueError(f"{method.name} compares with several images; expected attribute: {{baselines: [0.0, 1.0]}}")
    if cells is not None and "feature_mask" not in takes:
        raise ValueError(f"cells is {cells}, but {method.name} has no features of several pixels: leave `cells` out")
    if (
        method.name in ("Lime", "KernelShap", "ShapleyValues")
        and cells is None
        and "feature_mask" not in method.attribute
    ):
        raise ValueError(f"{method.name} cannot handle thousands of single values; expected cells, such as cells: 8")
    if method.name == "ShapleyValues" and cells is not None and cells**2 > _MOST_FEATURES:
        raise ValueError(
            f"cells is {cells}; ShapleyValues runs every order of the squares; expected 3 at most: use KernelShap"
        )
    return method


def _captum() -> Any:
    try:
        import captum.attr
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "captum":
            raise
        raise ValueError(
            "efface.methods.captum needs Captum, which is not installed; run: pip install 'efface[captum]'"
        ) from error
    return captum.attr


def _found(attr: Any, name: str) -> Any:
    why = next((why for part, why in _REFUSED.items() if part in name and hasattr(attr, name)), None)
    if why is not None:
        raise ValueError(f"algorithm {shown(name)} {why}; expected a class that explains an image's class")
    known = [
        algorithm
        for algorithm in attr.__all__
        if hasattr(getattr(attr, algorithm), "attribute")
        and not algorithm.endswith("Attribution")
        and not any(part in algorithm for part in _REFUSED)
    ]
    if name not in known:
        raise ValueError(f"captum.attr has no algorithm {shown(name)}; {nearest(name, known)}")
    return getattr(attr, name)


def _accepted(setting: str, name: str, given: Settings, known: set[str]) -> dict[str, Any]:
    for key in given or {}:
        if key in _OURS:
            raise ValueError(f"{setting}: {key} is set by efface (max_batch bounds a pass): leave it out")
        if key not in known:
            raise ValueError(f"{setting}: {name} has no setting {shown(key)}; {nearest(key, sorted(known - _OURS))}")
    return {key: _object(value) for key, value in (given or {}).items()}


def _object(value: Any) -> Any:
    return Call.model_validate(value)() if isinstance(value, Mapping) and "call" in value else value
