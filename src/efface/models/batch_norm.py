"""A repair of torch: the gradient of a BatchNorm or an InstanceNorm of one image.

On a CPU, torch 2.15 computes this gradient wrongly if the features and their gradient lie differently in memory. For
one image their strides look like those of both memory orders, and torch takes the wrong one. The error is as large as
the gradient. It happens where tokens, n t c, are made of features, n c h w, as in LeViT and XCiT. Two or more images
are not affected. The repair copies the gradient into the memory order of the normalised features.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

REPAIRED = ("batch_norm", "instance_norm")


@contextmanager
def single_images_repaired() -> Iterator[None]:
    """Compute the gradients of normalisations of one image correctly, for forward passes inside the block."""
    before: dict[str, Callable[..., Tensor]] = {name: getattr(torch, name) for name in REPAIRED}
    if any(hasattr(each, "is_repaired") for each in before.values()):
        yield
        return
    for name, norm in before.items():
        setattr(torch, name, _repaired(norm))
    try:
        yield
    finally:
        for name, norm in before.items():
            setattr(torch, name, norm)


def _repaired(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def repaired(images: Tensor, *rest: Any, **settings: Any) -> Tensor:
        normed = norm(images, *rest, **settings)
        if len(normed) == 1 and normed.requires_grad and normed.device.type == "cpu":
            normed.register_hook(partial(_laid_out, strides=normed.stride()))
        return normed

    repaired.is_repaired = True  # type: ignore[attr-defined]
    return repaired


def _laid_out(gradient: Tensor, *, strides: tuple[int, ...]) -> Tensor:
    """Return a gradient with these strides."""
    if gradient.stride() == strides:
        return gradient
    return gradient.new_empty_strided(gradient.shape, strides).copy_(gradient)
