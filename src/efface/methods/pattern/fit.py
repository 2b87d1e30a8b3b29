"""Patterns: the direction in which a unit's input changes with its response, estimated from training images.

Formula: for a unit with weights w, input X and response y, a = n / (w . n) with n = E+[X y] - E+[X] E[y].

So w . a = 1. E+ is a mean over the selected samples. E[y] is a mean over all samples or over the selected ones; the
estimator decides this. A sample of a convolution is one place of its output in one image.

Source: Kindermans et al. 2018, sections 4 and 5 (arXiv:1705.05598).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from efface.base import draws
from efface.base.shown import shown
from efface.base.types import Images, Seeds, Split
from efface.methods.pattern.network import folded_with_layers, padded, undefined
from efface.models.evaluation import evaluating
from efface.models.fast_copy import Layer, is_layer
from efface.models.memory import at_least_one, blocks
from efface.models.of_tokens import WITHOUT_IMAGES
from efface.store.arrays import read_rows

Estimator = Literal["two_component", "positive", "linear"]
"""Samples for the means E+ and E of a unit with a ReLU on its output.

two_component: E+ over samples with y > 0, E over all samples (eq. 7 of the paper).
positive: both over samples with y > 0: the covariance of X and y in the positive regime over y's variance there.
linear: both over all samples: the covariance of X and y over y's variance (eq. 6).

A unit without a ReLU on its output always gets `linear`.
"""
NUMBERS_AT_ONCE = 1 << 23
"""Numbers of one piece of work in float64: 64 MB. It changes patterns by rounding only."""
_ROUNDING = 1e-12  # smallest ratio of a signal to the means that it is the difference of: float32's rounding squared
# least cosine of weights and signal: a pattern is longer by 1 / cosine. In trained networks, 2 % of units have < 0.02
_ORTHOGONAL = 1e-3


@dataclass(frozen=True)
class Estimate:
    """Settings of the estimation of patterns.

    estimator: see `Estimator`.
    pool: training images, drawn by seed, at least 1; all where there are fewer. Each costs two to ten forward passes.
    places: places of each convolution's output, drawn by seed in each image, at least 1; all where there are fewer.
    """

    estimator: Estimator
    pool: int
    places: int

    def __post_init__(self) -> None:
        at_least_one("pool", self.pool)
        at_least_one("places", self.places)
        if self.estimator not in ("two_component", "positive", "linear"):
            raise ValueError(f"estimator is {shown(self.estimator)}; expected two_component, positive or linear")


@runtime_checkable
class FittedPatterns(Protocol):
    """A method whose patterns are estimated."""

    estimate: Estimate
    learnt: dict[str, Tensor]


def learnt_from(method: FittedPatterns) -> dict[str, Any]:
    """Return the settings that `learnt` depends on. Methods with equal settings share it."""
    return {"fit": "patterns", **vars(method.estimate)}


def fit(method: FittedPatterns, model: nn.Module, data: Split, *, seed: int, max_batch: int) -> None:
    """Estimate the patterns of the network's layers from training images, drawn by seed.

    max_batch: most images in one pass, at least 1. It limits the memory and changes patterns by rounding only.
    """
    order = draws.keys(torch.tensor([seed]), len(data.training))[0].argsort(stable=True)
    chosen = data.training[order[: method.estimate.pool]].sort().values
    like = next(model.parameters(), torch.empty(0))

    def batch(block: slice) -> Images:
        return read_rows(data.images, chosen[block]).to(like).div(255)

    seeds = draws.seeds_of(f"patterns {seed}", chosen)
    method.learnt = estimate_patterns(model, batch, seeds, method.estimate, max_batch=max_batch)


def estimate_patterns(
    model: nn.Module, batch: Callable[[slice], Images], seeds: Seeds, estimate: Estimate, *, max_batch: int = 256
) -> dict[str, Tensor]:
    """Return the patterns of each convolution and linear layer by name, in the shape of its weights, on the CPU.

    They belong to the weights after the following BatchNorm is folded into them. For every unit, w . a = 1. The pattern
    is 0 for a unit that is never active, for a unit with a constant response, and where w and n are nearly orthogonal.

    batch: function that returns the images of a slice.
    seeds: one integer per image. The places of an image depend only on its seed.
    """
    with evaluating(model), torch.no_grad():
        network, rectified = folded_with_layers(model, batch(slice(0, 1)))
        sums: dict[str, _Moments] = {}
        own = seeds[:0]

        def collect(moments: _Moments, _layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            moments.add(inputs[0], output, own)

        for number, (name, rectifies) in enumerate(rectified.items()):
            layer = network.get_submodule(name)
            assert is_layer(layer)
            estimator = estimate.estimator if rectifies else "linear"
            sums[name] = _Moments(name, layer, estimator, estimate.places, number)
            layer.register_forward_hook(partial(collect, sums[name]))
        for block in blocks(len(seeds), max_batch):
            own = seeds[block]
            network(batch(block))
        return {name: moments.patterns() for name, moments in sums.items()}


class _Moments:
    """Sums over the samples of a layer in float64, for each unit; the units are arranged by the layer's groups.

    number: number of the layer, so that each layer draws its own places.
    """

    def __init__(self, name: str, layer: Layer, estimator: Estimator, places: int, number: int) -> None:
        self.name, self.layer, self.estimator, self.places, self.number = name, layer, estimator, places, number
        groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
        shape = groups, len(layer.weight) // groups, layer.weight[0].numel()
        zeros = partial(torch.zeros, dtype=torch.float64, device=layer.weight.device)
        self.counting_x, self.counting_xy = zeros(shape), zeros(shape)
        self.counting, self.counting_y, self.y = zeros(shape[:2]), zeros(shape[:2]), zeros(shape[:2])
        self.samples = 0

    def add(self, x: Tensor, y: Tensor, seeds: Seeds) -> None:
        """Add the inputs and responses of a pass."""
        if len(x) != len(seeds):
            raise ValueError(undefined(self.name, WITHOUT_IMAGES))
        if isinstance(self.layer, nn.Conv2d):
            x, y = _windows(self.layer, x), y.permute(0, 2, 3, 1)
        else:
            x, y = (values.reshape(len(values), -1, 1, values.shape[-1]) for values in (x, y))
        across = y.shape[2]
        at = self._chosen(seeds.to(x.device), y.shape[1] * across)
        image = torch.arange(len(x), device=x.device)[:, None].expand_as(at)
        piece = max(1, NUMBERS_AT_ONCE // (x[0, 0, 0].numel() + 4 * self.y.numel()))
        for images, places in zip(image.flatten().split(piece), at.flatten().split(piece), strict=True):
            index = images, places // across, places % across
            self._sum(x[index].double(), y[index].double())

    def patterns(self) -> Tensor:
        """Return the patterns in the shape of the layer's weights."""
        weight = self.layer.weight.detach()
        count = self.counting.clamp(min=1)
        level = self.counting_y / count if self.estimator == "positive" else self.y / max(1, self.samples)
        units = zip(
            weight.flatten(1).split(piece := max(1, NUMBERS_AT_ONCE // weight[0].numel())),
            self.counting_x.flatten(0, 1).split(piece),
            self.counting_xy.flatten(0, 1).split(piece),
            count.flatten().split(piece),
            level.flatten().split(piece),
            strict=True,
        )
        return torch.cat([_pattern(*some).to(weight) for some in units]).view_as(weight).cpu()

    def _chosen(self, seeds: Seeds, count: int) -> Tensor:
        if count <= self.places:
            return torch.arange(count, device=seeds.device).expand(len(seeds), count)
        return draws.keys(draws.fold(seeds, self.number), count).topk(self.places).indices

    def _sum(self, x: Tensor, y: Tensor) -> None:
        groups = len(self.y)
        x, y = (values.reshape(len(values), groups, -1).transpose(0, 1) for values in (x, y))  # groups, samples, ...
        counts = torch.ones_like(y) if self.estimator == "linear" else (y > 0).double()
        self.counting_x.baddbmm_(counts.mT, x)
        self.counting_xy.baddbmm_((counts * y).mT, x)
        self.counting += counts.sum(1)
        self.counting_y += (counts * y).sum(1)
        self.y += y.sum(1)
        self.samples += y.shape[1]


def _pattern(weight: Tensor, sum_x: Tensor, sum_xy: Tensor, count: Tensor, level: Tensor) -> Tensor:
    """Return the patterns from the sums over the selected samples, for each unit."""
    mean_xy, taken = sum_xy / count[:, None], sum_x * (level / count)[:, None]
    signal = mean_xy - taken
    below = (weight * signal).sum(1, keepdim=True)
    size, terms = (signal.norm(dim=1, keepdim=True), mean_xy.norm(dim=1) + taken.norm(dim=1))
    sound = (size > _ROUNDING * terms[:, None]) & (below.abs() > _ORTHOGONAL * weight.norm(dim=1, keepdim=True) * size)
    return torch.where(sound, signal / below, 0.0)


def _windows(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Return the input window of each place of the output: a view, n, rows, columns, channels, kernel rows, columns."""
    x = padded(layer, x)
    for axis in (0, 1):
        x = x.unfold(2 + axis, layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1, layer.stride[axis])
    return x[..., :: layer.dilation[0], :: layer.dilation[1]].permute(0, 2, 3, 1, 4, 5)
