"""zennit's composites and canonizers by name, and their rules for functions that add or average."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from efface.base.shown import shown
from efface.base.types import Images
from efface.methods.adapters import NON_LINEAR, depend, module_name, nearest, watching
from efface.methods.zennit.network import BatchNorm, Linear, Traced, bounds

Settings = Mapping[str, Any] | None

_OURS = {"layer_map", "first_map", "canonizers"}
_NEEDING = {"Canonizer", "MergeBatchNorm", "NamedMergeBatchNorm", "AttributeCanonizer", "CompositeCanonizer"}
_SUMS = {"add": 1, "iadd": 1, "radd": 1, "sub": -1, "isub": -1}
_MEANS = {"mean", "sum", "avg_pool2d", "adaptive_avg_pool2d"}
_PRODUCTS = {"mul", "imul", "rmul", "div", "matmul", "bmm", "baddbmm", "scaled_dot_product_attention"}
_LOW_ROUNDING = 2e-2  # the same for weights in half precision
_ROUNDING = 1e-3  # fraction of the largest logit; merging in float32 changes logits by 1e-6


class Rules:
    """The rules of a composite for one network.

    functions: apply the composite's rules also to functions that add or average.
    """

    def __init__(self, composite: Any, model: nn.Module, *, functions: bool) -> None:
        self.composite, self.model = composite, model
        context: dict[str, Any] = {}  # a composite notes here that it has used its rule for the first layer
        pairs = [(child, composite.module_map(context, name, child)) for name, child in model.named_modules()]
        self.ruled = {child for child, rule in pairs if rule is not None}
        self.relevant = composite.module_map({}, "", nn.Conv2d(1, 1, 1)) is not None
        """True if the composite propagates relevance; False if it changes the gradient."""
        self.functions = functions and self.relevant

    @contextmanager
    def holding(self, model: nn.Module) -> Iterator[None]:
        """Apply the rules in every backward pass through the network, inside the `with` block."""
        kept: list[Any] = []  # zennit keeps only weak references to its hooks
        with self.composite.context(model), watching(model, self._seen(kept)):
            try:
                yield
            finally:
                for hook in kept:
                    hook.remove()

    def _seen(self, kept: list[Any]) -> Callable[..., Any]:
        from zennit.layer import Sum

        def ruled(module: nn.Module, like: nn.Module, features: Tensor) -> Tensor:
            hook = self.composite.module_map({}, "", like).copy()
            hook.register(module)
            kept.append(hook)
            output: Tensor = module(features)
            return output

        def relevance(name: str, module: nn.Module, func: Any, args: Any, kwargs: Any) -> Any:
            if module in self.ruled or not depend(*args[:1]):
                return func(*args, **kwargs)
            both = len(args) > 1 and depend(*args[:2])
            if name in _SUMS and both and kwargs.get("alpha", 1) == 1:
                first, second = torch.broadcast_tensors(*args[:2])
                total = ruled(Sum(), Sum(), torch.stack([first, _SUMS[name] * second], -1))
                return args[0].copy_(total) if name[0] == "i" or func.__name__ == f"{name}_" else total
            if name in _MEANS:
                return ruled(_Function(func, args[1:], kwargs), nn.AvgPool2d(1), args[0])
            if name in NON_LINEAR - {"relu"} or (name in _PRODUCTS and both):
                what = "multiplies features by features" if both else f"computes {name}"
                raise ValueError(
                    f"zennit.attribute: {module_name(self.model, module)} {what}, for which "
                    f"{type(self.composite).__name__} has no rule; choose another composite or method, or set "
                    "canonizer: null to run zennit without this check"
                )
            return func(*args, **kwargs)

        def gradient(name: str, module: nn.Module, func: Any, args: Any, kwargs: Any) -> Any:
            if name == "relu" and module not in self.ruled:
                raise ValueError(
                    f"zennit.attribute: {module_name(self.model, module)} calls {name} as a function, which "
                    f"{type(self.composite).__name__} cannot change; expected an nn.ReLU: give the module one"
                )
            return func(*args, **kwargs)

        if not self.relevant:
            return gradient
        return relevance if self.functions else lambda _name, _module, func, args, kwargs: func(*args, **kwargs)

    def check(self, found: Traced, merged: Callable[[str, nn.Module], bool]) -> None:
        """Raise ValueError for a network in which relevance would be lost or scaled silently.

        merged: function (name, module) -> True if a canonizer removes this BatchNorm.
        """
        name = type(self.composite).__name__
        first = next(child for child in self.model.modules() if isinstance(child, Linear))
        if hasattr(self.composite, "first_map") and first is not found.first:
            raise ValueError(
                f"zennit.attribute: {name} applies its rule for the first layer to {module_name(self.model, first)}, "
                f"but {module_name(self.model, found.first)} runs first; choose another composite"
            )
        for layer_name, module in found.ran.items():
            own = next(module.parameters(recurse=False), None) is not None
            lost = module not in self.ruled or isinstance(module, nn.MultiheadAttention)
            if own and lost and not merged(layer_name, module):
                raise ValueError(
                    f"zennit.attribute: {module_name(self.model, module)} has weights, but {name} has no rule for it; "
                    "choose another composite or method, such as lrp or cp_lrp, or set canonizer: null to "
                    "run zennit without this check"
                )


@dataclass(frozen=True)
class RuleSet:
    """A composite and a canonizer, chosen before the network is known.

    composite: a class of zennit.
    canonizer: a class of zennit, "auto", or None.
    settings: keyword arguments of the composite.
    """

    composite: Any
    canonizer: Any
    settings: dict[str, Any]

    def made(self, model: nn.Module, found: Traced, image: Images) -> Rules:
        """Return the rules for a network. ValueError: the rules do not fit the network."""
        settings = dict(self.settings)
        if "low" in inspect.signature(self.composite).parameters:
            flat = [_flat(name, settings.get(name, value), image) for name, value in (("low", 0.0), ("high", 1.0))]
            settings["low"], settings["high"] = bounds(model, found.first, *flat)
        auto = self.canonizer == "auto"
        canonizers = [] if self.canonizer is None else [_merging(found) if auto else self.canonizer()]
        rules = Rules(self.composite(**settings, canonizers=canonizers), model, functions=bool(self.canonizer))
        if rules.relevant and self.canonizer is not None:
            norms = {norm for _, norm in found.merges}
            rules.check(found, lambda name, module: name in norms if auto else isinstance(module, BatchNorm))
        with rules.holding(model), torch.no_grad():
            change = (model(image) - found.logits).abs().max()
        low = any(parameter.dtype.itemsize < 4 for parameter in model.parameters() if parameter.is_floating_point())
        if change > (_LOW_ROUNDING if low else _ROUNDING) * found.logits.abs().max():
            raise ValueError(
                f"zennit.attribute: canonizer {'auto' if auto else self.canonizer.__name__} changes the logits of "
                f"{type(model).__name__} by up to {change:.3g}; expected unchanged logits: choose another canonizer"
            )
        if not rules.relevant and not any(isinstance(module, nn.ReLU) for module in found.ran.values()):
            raise ValueError(
                f"zennit.attribute: no nn.ReLU runs in {type(model).__name__}, and {self.composite.__name__} changes "
                "only the gradient of nn.ReLU; choose another method"
            )
        return rules


def rule_set(composite: str, canonizer: str | None, settings: Settings) -> RuleSet:
    """Return the plan for the names and settings. ValueError: they are wrong for every network and image."""
    composites, canonizers = _zennit()
    if composite not in composites:
        raise ValueError(f"zennit has no composite {shown(composite)}; {nearest(composite, list(composites))}")
    if canonizer not in (None, "auto") and canonizer not in canonizers:
        raise ValueError(
            f"zennit has no canonizer {shown(canonizer)}; {nearest(str(canonizer), ['auto', *canonizers])}"
        )
    known = set(inspect.signature(composites[composite]).parameters) - _OURS
    for key in settings or {}:
        if key not in known:
            raise ValueError(f"settings: {composite} has no setting {shown(key)}; {nearest(key, sorted(known))}")
    return RuleSet(composites[composite], canonizers.get(canonizer, canonizer), dict(settings or {}))


def _zennit() -> tuple[dict[str, Any], dict[Any, Any]]:
    """Return zennit's composites and canonizers by name."""
    try:
        from zennit import canonizers, composites, torchvision
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "zennit":
            raise
        raise ValueError(
            "efface.methods.zennit needs zennit, which is not installed; run: pip install 'efface[zennit]'"
        ) from error
    every = vars(canonizers) | vars(torchvision)
    usable = {
        name: value
        for name, value in every.items()
        if inspect.isclass(value) and issubclass(value, canonizers.Canonizer) and name not in _NEEDING
    }
    return {composite.__name__: composite for composite in composites.COMPOSITES.values()}, usable


def _merging(trace: Traced) -> Any:
    from zennit.canonizers import NamedMergeBatchNorm

    class Merge(NamedMergeBatchNorm):
        """Merging that also removes the BatchNorm's eps.

        zennit does not remove eps. With eps = 1e-3 and many layers, this changes the logits.
        """

        @staticmethod
        def merge_batch_norm(modules: Any, batch_norm: Any) -> None:
            NamedMergeBatchNorm.merge_batch_norm(modules, batch_norm)
            batch_norm.running_var.data = torch.full_like(batch_norm.running_var.data, 1 - batch_norm.eps)

    return Merge([((linear,), norm) for linear, norm in trace.merges])


class _Function(nn.Module):
    """A function with its settings as a module, so that a rule can be registered on it."""

    def __init__(self, func: Any, args: Any, kwargs: Any) -> None:
        super().__init__()
        self.func, self.args, self.kwargs = func, args, kwargs

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.func(features, *self.args, **self.kwargs)
        return output


def _flat(name: str, value: Any, image: Images) -> Images:
    values = image.new_tensor(value).reshape(1, -1, 1, 1)
    if values.shape[1] not in (1, image.shape[1]):
        raise ValueError(
            f"settings: {name} has {values.shape[1]} numbers; expected one, or one for each of the images' "
            f"{image.shape[1]} channels"
        )
    return values.expand_as(image)
