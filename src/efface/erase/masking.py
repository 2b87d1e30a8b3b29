"""Erasing: a mask and an imputer turn images into erased images."""

import torch
from jaxtyping import Float
from torch import Tensor

from efface.base.types import Images, Imputer, Mask, StoredImages


def erase(images: Images, mask: Mask, imputer: Imputer) -> Images:
    """Put the imputer's values where the mask is True. All other values stay the same bit for bit."""
    if not _any(mask):
        return images
    where = mask[:, None] if mask.ndim == images.ndim - 1 else mask
    return torch.where(where, imputer(images, mask), images)


def erase_stored(stored: StoredImages, images: Images, mask: Mask, imputer: Imputer) -> StoredImages:
    """Return the result of `erase` followed by `to_stored`, bit for bit. Kept values already have 8 bits.

    images: `stored` as numbers in [0, 1], for the imputer.
    """
    if not _any(mask):
        return stored
    fill = imputer(images, mask)
    once = [slice(0, 1) if stride == 0 else slice(None) for stride in fill.stride()]  # a single colour is rounded once
    where = (mask[:, None] if mask.ndim == stored.ndim - 1 else mask).view(torch.uint8).neg()  # 255 where True
    # Measured on a CPU: a twentieth of the time of torch.where.
    return (stored ^ to_stored(fill[tuple(once)])).bitwise_and_(where).bitwise_xor_(stored)


def pad(images: Images, width: int, imputer: Imputer) -> Float[Tensor, "n c height width"]:
    """Add a border of removed pixels, so that a crop shows nothing that erasing would not show."""
    if width == 0:
        return images
    larger = torch.nn.functional.pad(images, (width,) * 4, mode="replicate")
    border = torch.ones(larger.shape[0], *larger.shape[2:], dtype=torch.bool, device=images.device)
    border[:, width:-width, width:-width] = False
    return erase(larger, border, imputer)


def to_float(stored: StoredImages) -> Images:
    """Return 8-bit images as numbers in [0, 1]."""
    return stored.float().div_(255)


def to_stored(images: Tensor) -> StoredImages:
    """Round images to 8 bits. Erased images then have the same precision as whole ones in a retraining."""
    return images.mul(255).round_().clamp_(0, 255).byte()


def _any(mask: Mask) -> bool:
    """Return whether any value is True. Reading bytes takes a CPU a twentieth of the time."""
    return bool(mask.view(torch.uint8).any())
