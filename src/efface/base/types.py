"""Shared types: the meaning of each kind of tensor. Its shape is checked wherever a signature uses the type."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

Images = Float[Tensor, "n c h w"]
"""Images in [0, 1]; the first layer of a network normalises them."""
StoredImages = UInt8[Tensor, "n c h w"]
"""Stored images: 8 bits for each channel."""
VECTOR_ZERO, VECTOR_ONE = 128, 127
"""A vector x in [-1, 1] is stored as `VECTOR_ZERO + VECTOR_ONE * x`, so -1, 0 and 1 are exact levels of 8 bits."""
Targets = Int[Tensor, " n"]
Target = Int[Tensor, " n"] | Float[Tensor, "n k"]
"""Target of a gradient method: a class for each image, or a weight for each class, for the weighted sum of logits."""
Maps = Float[Tensor, "n h w"] | Float[Tensor, "n c h w"]
"""Attributions; they have both signs unless the method states otherwise."""
Ranks = Int[Tensor, "n h w"] | Int[Tensor, "n c h w"]
"""Ranks of an image's units, a permutation; 0 is the most relevant unit."""
Mask = Bool[Tensor, "n h w"] | Bool[Tensor, "n c h w"]
"""Mask of removed pixels or features; True means removed."""
Seeds = Int[Tensor, " n"]
"""One seed for each image, which gives the same random numbers in any batch."""

Order = Literal["most_first", "least_first"]
Unit = Literal["pixel", "feature"]
"""Units that a map ranks if it forms no groups: pixels with all their channels, or each channel of a pixel."""
Knows = Literal["nothing", "metric", "truth"]
"""What a control knows of the network: nothing, the response that a metric measures, or its exact map."""
TargetScore = Literal["logit", "log_probability", "probability", "loss"]
"""Score of the target class that is differentiated: output before softmax, (log) probability, or cross entropy."""

Method = Callable[..., Maps]
Imputer = Callable[..., Images]


@runtime_checkable
class Stored(Protocol):
    """Rows in a file, see `efface.store.arrays.StoredArray`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def take(self, indices: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Split:
    """Images and their classes. Row i of a map file is always row i of its split.

    images: uint8 n c h w, in memory or in a file.
    targets: class of each image, int64 n.
    classes: names of the classes, in the order of the targets; may be empty.
    masks: True for the pixels of the true object, n h w; None if the data set has no masks.
    validation: row numbers of the held-out training rows, which no training uses.
    notes: sentences on what was left out or decided; `check` says them, and the page shows them.
    """

    images: Tensor | Stored
    targets: Tensor
    classes: tuple[str, ...] = ()
    masks: Tensor | None = None
    validation: Tensor | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        _, c, h, w = self.images.shape
        return c, h, w

    @property
    def training(self) -> Tensor:
        """Row numbers that a training may use: all but the validation rows."""
        seen = torch.ones(len(self), dtype=torch.bool)
        if self.validation is not None:
            seen[self.validation] = False
        return seen.nonzero().flatten()


_OLD = {"Explained": "Target", "Of": "TargetScore"}


def __getattr__(name: str) -> Any:
    """Return the object behind a name of efface 0.1. The old names work until efface 0.3."""
    if name not in _OLD:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    message = f"{__name__}.{name} is now {__name__}.{_OLD[name]}; the old name works until efface 0.3"
    warnings.warn(message, FutureWarning, stacklevel=2)
    return globals()[_OLD[name]]
