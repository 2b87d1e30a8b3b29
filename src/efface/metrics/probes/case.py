"""Case: all that a probe may need, whatever it measures."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from efface.store.arrays import take
from efface.store.maps import MapStore
from efface.training.loop import Fit, Log
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


@dataclass(frozen=True)
class Case:
    """All that a probe may need. `network` is the given one; `build` makes a fresh one.

    explained: the class each test image's maps explain. maps: by split, absent for a probe that needs none.
    mean: channel means of the training images. rows: images in one forward pass. checkpoint: where a training may
    keep its state. log: where it may write its scalars. cache: ranks of the last map.
    explain: the method, for a probe that asks it again.
    samples: (a Sampling) -> images that the network made of the classes of the test rows, in their
        order, and over again.
    once: (name, what it depends on, make) -> the tensors that `make` gives, made once in a run and kept: a network that
        several probes share.
    judge: gives the study's second network, on the device, in eval mode; None where it has none.
    """

    build: Callable[[], nn.Module]
    network: nn.Module | None
    data: Mapping[str, Split]
    explained: Targets
    maps: Mapping[str, MapStore]
    mean: Tensor
    fit: Fit | None
    seed: int
    rows: int
    device: torch.device
    checkpoint: Path | None = None
    advance: Callable[[float], None] = lambda _: None
    log: Log | None = None
    cache: dict[Any, Tensor] = field(default_factory=dict, repr=False, compare=False)
    explain: Explain | None = None
    samples: Callable[[Any], Samples] | None = None
    once: Callable[[str, Any, Callable[[], dict[str, Tensor]]], dict[str, Tensor]] = lambda _name, _what, make: make()
    judge: Callable[[], nn.Module] | None = None


def image_mean(split: Split) -> Tensor:
    """Channel means of a split's images in [0, 1], over at most 50,000 evenly spaced rows."""
    count = min(len(split), 50_000)
    rows = torch.linspace(0, len(split) - 1, count).round().long()
    sums = [take(split.images, part).sum((0, 2, 3), dtype=torch.int64) for part in rows.split(block_of(split))]
    _, h, w = split.shape
    return (torch.stack(sums).sum(0).double() / (count * h * w * 255)).float()


def block_of(split: Split) -> int:
    """How many images are worked on at once."""
    return max(1, min(1024, _TOGETHER // math.prod(split.shape)))
