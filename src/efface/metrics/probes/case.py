"""Case: everything that a probe may need."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from efface.base.types import Images, Maps, Split, Targets
from efface.store.arrays import read_rows
from efface.store.maps import MapStore
from efface.training.loop import Log, TrainingSettings

_TOGETHER = 1 << 22  # numbers ranked or erased at once, 4 to 8 bytes each: 1,024 images of 32 x 32, 27 of 224 x 224


Explain = Callable[..., Maps]
"""Function (network, images, classes, indices) -> maps. It runs the measured method again, on the images' device.

indices: numbers of the test images from which the images were made. The method draws as for these test images.
masks (optional): true objects of the images, if they differ from those of the test images.
"""


class Samples(NamedTuple):
    """Images in [0, 1] that the network generated, and their target classes, on the CPU."""

    images: Images
    targets: Targets


def _no_explain(*_: Any, **__: Any) -> Maps:
    raise ValueError("this case has no method to run again; write in the probe: needs = Needs(method=True)")


def _no_samples(_: Any) -> Samples:
    raise ValueError("this case has no samples; write in the probe: needs = Needs(samples=Sampling(...))")


def _no_second_network() -> nn.Module:
    raise ValueError(
        "this case has no second network; write in the probe: needs = Needs(second_network=True), and "
        "give the study a 'second_network'"
    )


@dataclass(frozen=True)
class Case:
    """Everything that a probe may need. Reading a part that the probe did not request in its `needs` raises ValueError.

    build: function that builds a fresh network.
    data: the splits.
    target_classes: the class that the maps of each test image explain.
    maps: map files by split, absent for a probe that needs none.
    mean: channel means of the training images.
    max_batch: images in one forward pass.
    given_network, given_training: read them as `network` and `training`.
    checkpoint: file where a training may keep its state.
    log: function that writes scalars of a training.
    cache: ranks of the last map.
    advance: reports finished work in forward passes of one image.
    explain: the method, for a probe that runs it again.
    samples: function (a Sampling) -> generated images of the classes of the test rows, in order, repeated from the
        first row if there are more samples than rows.
    once: function (name, what it depends on, make) -> tensors of `make`, computed once in a run and kept. Several
        probes can share a network in this way.
    rows: numbers of the test images that a probe with `Needs(blocks=True)` scores; None: all. Read them as `test_rows`.
    second_network: function that returns the study's second network, on the device, in evaluation mode.
    """

    build: Callable[[], nn.Module]
    data: Mapping[str, Split]
    target_classes: Targets
    maps: Mapping[str, MapStore]
    mean: Tensor
    seed: int
    max_batch: int
    device: torch.device
    given_network: nn.Module | None = None
    given_training: TrainingSettings | None = None
    checkpoint: Path | None = None
    advance: Callable[[float], None] = lambda _: None
    log: Log | None = None
    cache: dict[Any, Tensor] = field(default_factory=dict, repr=False, compare=False)
    explain: Explain = _no_explain
    samples: Callable[[Any], Samples] = _no_samples
    once: Callable[[str, Any, Callable[[], dict[str, Tensor]]], dict[str, Tensor]] = lambda _name, _what, make: make()
    second_network: Callable[[], nn.Module] = _no_second_network
    rows: Int[Tensor, " rows"] | None = field(default=None, compare=False)

    @property
    def test_rows(self) -> Int[Tensor, " rows"]:
        """The numbers of the test images to be scored, in the order of the score's values."""
        return torch.arange(len(self.data["test"])) if self.rows is None else self.rows

    @property
    def network(self) -> nn.Module:
        """The given network. ValueError: this probe trains a new network."""
        if self.given_network is None:
            raise ValueError("this case has no given network; write in the probe: needs = Needs(network=True)")
        return self.given_network

    @property
    def training(self) -> TrainingSettings:
        """Settings of a training. ValueError: the study has no 'fit'."""
        if self.given_training is None:
            raise ValueError("this case has no training settings; give the study a 'fit'")
        return self.given_training

    @property
    def masks(self) -> Bool[Tensor, "n h w"]:
        """The true object of each test image. ValueError: the data have no masks."""
        masks = self.data["test"].masks
        if masks is None:
            raise ValueError("this case has no masks of true objects; write in the probe: needs = Needs(masks=True)")
        return masks


def image_mean(split: Split) -> Tensor:
    """Return the channel means of a split's images in [0, 1], over at most 50,000 evenly spaced rows."""
    count = min(len(split), 50_000)
    indices = torch.linspace(0, len(split) - 1, count).round().long()
    sums = [read_rows(split.images, part).sum((0, 2, 3), dtype=torch.int64) for part in indices.split(block_of(split))]
    _, h, w = split.shape
    return (torch.stack(sums).sum(0).double() / (count * h * w * 255)).float()


def block_of(split: Split) -> int:
    """Return the number of images that are processed at once."""
    return max(1, min(1024, _TOGETHER // math.prod(split.shape)))
