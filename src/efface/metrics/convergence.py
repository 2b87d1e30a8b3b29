"""Convergence: whether different signals from a layer give different maps, or whether all maps end up the same.

Source: Sixt, Granz & Landgraf 2020, section 4 (arXiv:1912.09818); a script of Schwarzenberg & Castle 2020.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Maps
from efface.erase.masking import to_float
from efface.metrics.formula import Metric, values_of
from efface.metrics.probes import Case, Needs
from efface.metrics.shared.layers import Layers, groups, reached, read_layers
from efface.metrics.shared.orders import UNIT
from efface.models.layers import find_layer
from efface.store.arrays import read_rows
from efface.store.results import Score
from efface.training.loop import TrainingSettings


def convergence(*, layers: list[str] | str | None = None, points: int | None = None, pairs: int = 2) -> Metric:
    """Absolute cosine between the maps of two random signals that start at a layer, layer by layer.

    The network is cut at a layer. Two standard normal signals of the layer's shape act as two classes. Their logits are
    the products of the layer's output with the signals. The method explains both classes. Signals that a gradient sends
    back stay apart. If a rule makes the matrix of each step positive, every signal ends in one direction, and the map
    no longer depends on the class.
    Formula: cosine = |<a, b>| / (|a| |b|) of two whole maps a and b, averaged over pairs.

    Any method can be measured. A method that ignores the class has the value 1. A method that needs a layer behind the
    cut (a CAM, at the first points) has no map there. Its summary uses the points that it has, it is compared with
    another method on the points that both have, and it gets no rank.

    At 0 the signals start at the image. `start` is the value of the signals themselves. It is large if a layer has few
    numbers, as the logits have. `random` is the value of two random vectors of a map's size. The cost is 2 * `pairs`
    maps for each image and point.

    layers: names from the output down, or the name of a list, as in `randomisation`. By default every module with
        parameters of its own, in the order in which they run. A layer's output is that of the named module.
    points: steps along the axis besides 0, at least 1. Default: one for each named layer, or 8 without names.
    pairs: pairs of signals at each layer, at least 1, the same for all images and methods. Their values are averaged.

    Source: Sixt et al. 2020, section 4 (arXiv:1912.09818).
    Differs: the signals of every layer are compared at the image alone, where they become a map; on the test images,
        not on noise; whole maps are compared, not channels place by place; nothing adds up between batches.
    """
    named, shares = read_layers("convergence", layers, points)
    if pairs < 1:
        raise ValueError(f"convergence: pairs is {pairs}, expected a whole number of at least 1; raise it")
    return Metric(
        probes=lambda point: {"signals": Signals(point.x, named, pairs)},
        value=values_of("signals", "cosine", "start", "random"),
        direction={"cosine": "lower", "start": "none", "random": "none"},
        ranges=dict.fromkeys(("cosine", "start", "random"), UNIT),
        sample="images",
        uses=frozenset({"fractions"}),
        caption="Random signals start at a layer, and the method sends them back to the image. A truthful map keeps "
        "them apart. An absolute cosine near 1 means that the map is the same for any class.",
        family="randomisation",
        axis="share of layers passed",
        points_for=lambda _shape: shares,
        may_lack_points=True,
    )


def absolute_cosine(one: Float[Tensor, "n *units"], other: Float[Tensor, "n *units"]) -> Float[Tensor, " n"]:
    """Absolute cosine of the angle between two whole maps, in float64. NaN if one of them is 0 everywhere."""
    first, second = one.flatten(1).double(), other.flatten(1).double()
    # divide by the largest value first: squares of the maps of a deep network can leave even float64
    first, second = (vectors / vectors.abs().amax(1, keepdim=True) for vectors in (first, second))
    return ((first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))).abs()


class Opened(nn.Module):
    """A network cut at a layer. Its logits are the products of the layer's output with random signals.

    Each signal acts as a class. The rest of the network also runs, times 0, so that methods find every layer.

    layer: the full name of a module. None: the image itself.
    signals: one row for each signal, one column for each number of the layer's output.
    """

    signals: Tensor
    efface_layers_within = "network"

    def __init__(self, network: nn.Module, layer: str | None, signals: Float[Tensor, "k units"]) -> None:
        super().__init__()
        self.network, self.layer = network, layer
        self.register_buffer("signals", signals / math.sqrt(signals.shape[1]))

    def forward(self, images: Tensor) -> Tensor:
        answer, logits = answer_of(self.network, self.layer, images)
        nothing = torch.nan_to_num(logits, 0.0, 0.0, 0.0).flatten(1).sum(1, keepdim=True) * 0.0
        return answer.flatten(1) @ self.signals.T + nothing


def answer_of(network: nn.Module, layer: str | None, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output of a layer in its last run, and the logits. ValueError: it gives no tensor."""
    if layer is None:
        return images, network(images)
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, answer: object) -> None:
        if isinstance(answer, Tensor):
            outputs.append(answer.clone())  # the next module may change it in place

    handle = network.get_submodule(layer).register_forward_hook(keep)
    try:
        logits = network(images)
    finally:
        handle.remove()
    if not outputs or len(outputs[-1]) != len(images):
        raise ValueError(
            f"convergence: layer '{layer}' of {type(network).__name__} returns no tensor with one row an image; "
            "name other layers"
        )
    return outputs[-1], logits


def answering(network: nn.Module, image: Images) -> list[str]:
    """Return the modules with parameters of their own whose output is a tensor, in the order in which they run."""
    in_order: dict[str, None] = {}
    handles = []
    for (name,) in groups(network, None):

        def note(_module: nn.Module, _inputs: object, answer: object, name: str = name) -> None:
            if isinstance(answer, Tensor) and len(answer) == len(image):
                in_order[name] = None

        handles.append(network.get_submodule(name).register_forward_hook(note))
    try:
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return list(in_order)


@dataclass(frozen=True)
class Signals:
    """Absolute cosines of the maps of random signals that start at a share of the layers, counted from the image."""

    share: float
    layers: Layers
    pairs: int

    needs = Needs(maps=False, method=True)
    explains = "none"  # the classes are signals

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Number of maps."""
        return float(2 * self.pairs * images["test"])

    def identity(self) -> dict[str, Any]:
        return {"probe": "signals", "share": self.share, "layers": self.layers, "pairs": self.pairs}

    def check(self, network: nn.Module, images: Images) -> None:  # noqa: ARG002
        """Raise ValueError if the network has no such layer, or if the layer has no parameters."""
        groups(network, self.layers)

    def __call__(self, case: Case) -> Score:
        split = case.data["test"]
        values: dict[str, list[np.ndarray]] = {"cosine": [], "random": []}
        opened = self.opened(case, to_float(read_rows(split.images, torch.arange(1)).to(case.device)))
        for indices in torch.arange(len(split)).split(case.max_batch):
            images = to_float(read_rows(split.images, indices).to(case.device))
            maps = [self._maps(case, opened, images, indices, number) for number in range(2 * self.pairs)]
            pairs = zip(maps[::2], maps[1::2], strict=True)
            cosines = torch.stack([absolute_cosine(one, other) for one, other in pairs])
            seeds = draws.seeds_of(f"{case.seed} convergence vectors", indices).to(case.device)
            one, other = draws.normal(seeds, (2, *maps[0].shape[1:])).unbind(1)
            values["cosine"].append(cosines.mean(0).float().numpy(force=True))
            values["random"].append(absolute_cosine(one, other).float().numpy(force=True))
        start = float(absolute_cosine(opened.signals[::2], opened.signals[1::2]).mean())
        score = {name: np.concatenate(parts) for name, parts in values.items()}
        return Score({**score, "start": np.full(len(split), start, np.float32)})

    def opened(self, case: Case, image: Images) -> Opened:
        """Return the network, cut at the layer, with its signals."""
        network = case.network
        names = self._names(network, image)
        upto = reached(len(names), self.share)
        layer = names[upto - 1] if upto else None
        with torch.no_grad():
            size = answer_of(network, layer, image)[0][0].numel()
        seeds = draws.seeds_of(f"{case.seed} convergence {layer}", torch.arange(2 * self.pairs))
        return Opened(network, layer, draws.normal(seeds, (size,)).to(case.device)).eval()

    def _names(self, network: nn.Module, image: Images) -> list[str]:
        """Return the layers from the image on."""
        if self.layers is None:
            return answering(network, image)
        groups(network, self.layers)  # raises if a layer is missing
        full = {module: name for name, module in network.named_modules()}
        return [full[find_layer(network, layer)] for layer in reversed(self.layers)]

    def _maps(self, case: Case, opened: Opened, images: Images, indices: Tensor, number: int) -> Maps:
        classes = torch.full((len(indices),), number, device=case.device)
        maps = case.explain(opened, images, classes, indices)
        case.advance(float(len(indices)))
        return maps
