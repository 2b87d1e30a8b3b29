"""A repair of torch: the gradient of a BatchNorm of one image.

On a CPU, torch 2.15 computes this gradient wrongly if it comes back from tokens, n t c, that were made of features,
n c h w. For one image, their strides look like those of both memory orders, and torch takes the wrong one. The error is
as large as the gradient. LeViT and XCiT are such networks. Two or more images are not affected.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def single_images_repaired() -> Iterator[None]:
    """Compute the gradients of BatchNorms of one image correctly, for forward passes inside the block."""
    before: Callable[..., Tensor] = torch.batch_norm
    if getattr(before, "is_repaired", False):
        yield
        return
    torch.batch_norm = _repaired(before)
    try:
        yield
    finally:
        torch.batch_norm = before


def _repaired(batch_norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def repaired(images: Tensor, *rest: Any, **settings: Any) -> Tensor:
        normed = batch_norm(images, *rest, **settings)
        if len(normed) == 1 and normed.requires_grad and normed.device.type == "cpu":
            normed.register_hook(Tensor.contiguous)
        return normed

    repaired.is_repaired = True  # type: ignore[attr-defined]
    return repaired
