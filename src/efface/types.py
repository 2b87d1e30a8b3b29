"""The words: what a tensor means is said once, here, and checked wherever a signature uses it."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

Images = Float[Tensor, "n c h w"]
"""Images in [0, 1]; normalisation is the network's first layer."""
StoredImages = UInt8[Tensor, "n c h w"]
"""Images as they are kept: 8 bits a channel."""
VECTOR_ZERO, VECTOR_ONE = 128, 127
"""A vector in [-1, 1] is kept as `VECTOR_ZERO + VECTOR_ONE * x`: -1, 0 and 1 are levels of 8 bits, exactly."""
Targets = Int[Tensor, " n"]
Target = Int[Tensor, " n"] | Float[Tensor, "n k"]
"""What a gradient method explains: a class for each image, or a weight for each class, whose weighted sum is meant."""
Maps = Float[Tensor, "n h w"] | Float[Tensor, "n c h w"]
"""Attributions, signed unless the method says otherwise."""
Ranks = Int[Tensor, "n h w"] | Int[Tensor, "n c h w"]
"""0 = most relevant; a permutation of the image's units."""
Mask = Bool[Tensor, "n h w"] | Bool[Tensor, "n c h w"]
"""True = removed."""
Seeds = Int[Tensor, " n"]
"""One seed an image: the same draws in any batch."""

Order = Literal["most_first", "least_first"]
Unit = Literal["pixel", "feature"]
"""What a map ranks without forming groups: pixels with all their channels, or each channel of a pixel."""
TargetScore = Literal["logit", "log_probability", "probability", "loss"]
"""What is differentiated, of the target class: its output before softmax, its (log) probability, its cross entropy."""

Method = Callable[..., Maps]
Imputer = Callable[..., Images]


@runtime_checkable
class Stored(Protocol):
    """Rows that live in a file: see `efface.store.arrays.StoredArray`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def take(self, rows: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Split:
    """Images and their classes. Row i of a map file is row i of its split, for ever.

    images: uint8 n c h w, in memory or in a file.
    targets: int64 n.
    classes: their names, in the order of the targets; may be empty.
    masks: True where the true object is, n h w; only where the data know it.
    validation: row numbers of a part of the training rows that no training sees.
    """

    images: Tensor | Stored
    targets: Tensor
    classes: tuple[str, ...] = ()
    masks: Tensor | None = None
    validation: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        _, c, h, w = self.images.shape
        return c, h, w

    @property
    def training(self) -> Tensor:
        """Row numbers that a training may see: all but the validation rows."""
        seen = torch.ones(len(self), dtype=torch.bool)
        if self.validation is not None:
            seen[self.validation] = False
        return seen.nonzero().flatten()


_OLD = {"Explained": "Target", "Of": "TargetScore"}


def __getattr__(name: str) -> Any:
    """The names of efface 0.1, until efface 0.3."""
    if name not in _OLD:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    message = f"{__name__}.{name} is now {__name__}.{_OLD[name]}; the old name works until efface 0.3"
    warnings.warn(message, FutureWarning, stacklevel=2)
    return globals()[_OLD[name]]
