"""What a method and a metric cost, and where a method works: counted and tried here, on small networks."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from efface.methods.calling import MethodCall, check_method
from efface.methods.control import is_control
from efface.metrics import Metric, metric
from efface.metrics.probes import Probe
from efface.plug.call import Call
from efface.stages.trial import networks
from efface.study.study import Study
from efface.training.loop import TrainingSettings

LONGEST = 20.0  # seconds of one call of a method
_VIT = networks.small(
    "Vision_Transformer", image_size=64, patch_size=16, num_layers=5, num_heads=4, hidden_dim=64, mlp_dim=128
)
NETWORKS = {
    "a CNN with ReLU (ResNet)": networks.RESNET,
    "a CNN without ReLU (ConvNeXt)": networks.small_convnext(),
    "a ViT": _VIT,
    "a Swin": networks.SWIN,
}
"""One network of each row of the table of docs/choosing.md."""
_IMAGES = {"train": 1, "test": 1}


def method_facts(path: str, kwargs: dict[str, Any], *, batched: bool) -> dict[str, Any]:
    """Return on which kinds of networks a method works, and the passes that it takes with its settings.

    Keys: `batched`; `control`; `networks`, by kind of network "" or the reason why not; `cost`, with `forward` and
    `backward` passes of an image in words, or `unknown`; `outputs`, names of the maps if there are several.

    ValueError: the settings are wrong.
    """
    call = Call(call=path, kwargs=kwargs)
    found: dict[str, Any] = {"batched": batched, "control": is_control(call), "networks": {}, "outputs": []}
    if missing := networks.needed(call):
        sets = " ".join(f"{name}=..." for name in missing)
        return found | {"cost": {"unknown": f"it needs {sets}; add the words to this command to count the passes"}}
    check_method(call, batched=batched)
    torch.set_num_threads(1)
    if found["control"]:
        return found | {"cost": {"forward": "0", "backward": "0"}}
    built = {name: networks.fresh(each) for name, each in NETWORKS.items()}
    some = networks.few(call, networks.FEW | {"steps": 20})
    quick = MethodCall(path, some, batched, timeout=LONGEST)
    for name, network in built.items():
        quick = _with_outputs(quick, network, NETWORKS[name].side)
        found["networks"][name] = networks.tried(quick, network, NETWORKS[name].side, {})
    fits = next((name for name, why in found["networks"].items() if not why or why.startswith("differs")), None)
    found["outputs"] = list(quick.outputs)
    made = MethodCall(path, call, batched, quick.outputs, timeout=LONGEST)
    if fits is None:
        return found | {"cost": {"unknown": "it works on none of these networks"}}
    try:
        return found | {"cost": networks.cost(made, built[fits], NETWORKS[fits].side) | {"on": NETWORKS[fits].what}}
    except ValueError as error:
        return found | {"cost": {"unknown": str(error).partition(": ")[2] or str(error)}}


def _with_outputs(made: MethodCall, network: nn.Module, side: int) -> MethodCall:
    """Return the call with the names of its maps, if the method returns a dict of maps."""
    if made.outputs:
        return made
    try:
        networks.cost(made, network, side)
    except Exception as error:  # noqa: BLE001  said by the trial itself
        names = str(error).partition("outputs: [")[2].partition("]")[0]
        return replace(made, outputs=tuple(names.split(", ")) if names else ())
    return made


def metric_facts(path: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a metric yields, needs and costs for one image of 3 x 32 x 32, one method and one repeat.

    Keys: `values`, by name the direction of a truthful map; `axis`; `points`; `summary`; `sample`; `reads`, settings of
    the study that change its numbers; `fixed`, settings that its paper fixes; `needs`; `cost`, with `passes` and
    `trainings`.
    """
    made = metric(path, kwargs)
    points = _points(made)
    probes: set[Probe] = set()
    for x in points:
        probes |= set(made.probes(_point(made, x)).values())
    fit = TrainingSettings(epochs=1)
    trainings = sum(not probe.needs.network for probe in probes)
    passes = sum(probe.cost(_IMAGES, fit) for probe in probes if probe.needs.network)
    return {
        "values": dict(made.direction),
        "axis": made.axis,
        "points": list(points),
        "summary": made.summary if len(points) > 1 else "the value",
        "sample": made.sample,
        "subject": made.subject,
        "reads": sorted(each for each in made.uses if each != "groups"),
        "fixed": dict(made.defaults),
        "read_with": list(made.read_with),
        "needs": sorted(_needs(made, probes)),
        "cost": {"passes": round(float(passes), 1), "trainings": trainings},
    }


def _points(made: Metric) -> tuple[float, ...]:
    if made.points_for is not None:
        return tuple(made.points_for((3, 32, 32)))
    fractions = made.defaults.get("fractions") or Study.model_fields["fractions"].default
    return tuple(dict.fromkeys((0.0, *fractions)))


def _point(made: Metric, x: float) -> Any:
    from efface.metrics import Point

    fill = Call.model_validate(made.defaults.get("imputer") or "efface.impute.channel_mean")
    post = tuple(Call.model_validate(each) for each in made.defaults.get("post") or ())
    unit: Any = made.defaults.get("unit") or "pixel"
    return Point(x, 0, fill, post, Call.model_validate(unit) if isinstance(unit, dict) or "." in unit else unit)


def _needs(made: Metric, probes: set[Probe]) -> set[str]:
    """Return in words what the study must have for the metric."""
    found = set()
    for probe in probes:
        needs = probe.needs
        found |= {"fit: it trains networks"} if not needs.network or needs.training or made.needs_fit else set()
        found |= {"masks of the true object"} if needs.masks else set()
        found |= {"a second network"} if needs.second_network else set()
        found |= {"samples of the network"} if needs.samples is not None else set()
        found |= {"the method itself, which it runs again"} if needs.method else set()
    return found
