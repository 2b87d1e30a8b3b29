"""Normalisation as a layer, so that every network takes images in [0, 1]."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """A layer that subtracts the mean of each channel and divides by its standard deviation.

    Both are settings, not weights: they move with the network between devices, but are not part of its state dict.

    mean: one number for each channel, on the scale of images in [0, 1].
    std: one number above 0 for each channel, on the same scale.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ValueError(
                f"mean {list(mean)} and std {list(std)}: expected one number for each channel in both, and std above 0"
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


def normalisation(mean: Sequence[float] | None, std: Sequence[float] | None, channels: int = 3) -> nn.Module:
    """Return the first layer of a network: `Normalise`, or the identity if neither mean nor std is given."""
    if mean is None and std is None:
        return nn.Identity()
    if mean is None or std is None:
        raise ValueError(f"mean is {mean}, std is {std}: give both or neither")
    layer = Normalise(mean, std)
    if len(mean) != channels:
        raise ValueError(
            f"mean and std have {len(mean)} numbers, the images {channels} channels; give one number for each channel"
        )
    return layer
