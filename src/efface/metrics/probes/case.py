"""Case: all that a probe may need, whatever it measures."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from efface.store.arrays import read_rows
from efface.store.maps import MapStore
from efface.training.loop import Log, TrainingSettings
from efface.types import Images, Maps, Split, Targets

_TOGETHER = 1 << 22  # numbers ranked or erased at once, of 4 to 8 bytes each: 1,024 images of 32 x 32, 27 of 224 x 224


Explain = Callable[..., Maps]
"""(network, images, classes, rows) -> maps: the method whose maps are measured, asked again, on the images' device.

rows: test row numbers of the images that these were made of; the method draws as it did for them.
masks: (may be left out) true objects of the images, where they are not those of the rows.
"""


class Samples(NamedTuple):
    """Images in [0, 1] that the network made, and the class that each was aimed at; on the CPU."""

    images: Images
    targets: Targets


def _no_explain(*_: Any, **__: Any) -> Maps:
    raise ValueError("this case has no method to ask again; say in the probe: needs = Needs(method=True)")


def _no_samples(_: Any) -> Samples:
    raise ValueError("this case has no samples; say in the probe: needs = Needs(samples=Sampling(...))")


def _no_judge() -> nn.Module:
    raise ValueError(
        "this case has no second network; say in the probe: needs = Needs(second_network=True), and "
        "give the study a 'second_network'"
    )


@dataclass(frozen=True)
class Case:
    """All that a probe may need. What it did not ask for in its `needs` is not there: to read it is a ValueError.

    build: makes a fresh network. data: the splits. target_classes: the class that each test image's maps explain.
    maps: by split, absent for a probe that needs none. mean: channel means of the training images.
    max_batch: images in one forward pass. given_network, given_training: read them as `network` and `training`.
    checkpoint: where a training may keep its state. log: where it may write its scalars. cache: ranks of the last map.
    advance: reports work that is done, in forward passes of one image.
    explain: the method, for a probe that asks it again.
    samples: (a Sampling) -> images that the network made of the classes of the test rows, in their
        order, and over again.
    once: (name, what it depends on, make) -> the tensors that `make` gives, made once in a run and kept: a network that
        several probes share.
    second_network: gives the study's second network, on the device, in eval mode.
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
    second_network: Callable[[], nn.Module] = _no_judge

    @property
    def network(self) -> nn.Module:
        """The given network. ValueError: this probe trains a new one."""
        if self.given_network is None:
            raise ValueError("this case has no given network; say in the probe: needs = Needs(network=True)")
        return self.given_network

    @property
    def training(self) -> TrainingSettings:
        """How networks are trained. ValueError: the study has no 'fit'."""
        if self.given_training is None:
            raise ValueError("this case has no settings of a training; give the study a 'fit'")
        return self.given_training

    @property
    def masks(self) -> Bool[Tensor, "n h w"]:
        """The true object of each test image. ValueError: the data have no masks."""
        masks = self.data["test"].masks
        if masks is None:
            raise ValueError("this case has no masks of true objects; say in the probe: needs = Needs(masks=True)")
        return masks


def image_mean(split: Split) -> Tensor:
    """Channel means of a split's images in [0, 1], over at most 50,000 evenly spaced rows."""
    count = min(len(split), 50_000)
    rows = torch.linspace(0, len(split) - 1, count).round().long()
    sums = [read_rows(split.images, part).sum((0, 2, 3), dtype=torch.int64) for part in rows.split(block_of(split))]
    _, h, w = split.shape
    return (torch.stack(sums).sum(0).double() / (count * h * w * 255)).float()


def block_of(split: Split) -> int:
    """How many images are worked on at once."""
    return max(1, min(1024, _TOGETHER // math.prod(split.shape)))
