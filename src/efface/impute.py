"""What takes the place of a removed pixel: (images, removed) -> images; only the removed places of it are used.

A keyword-only parameter `mean` is handed over: the data set's channel means.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from efface.blur import gaussian_blur
from efface.types import Images, Mask


def channel_mean(images: Images, removed: Mask, *, mean: Float[Tensor, " c"] | Sequence[float]) -> Images:  # noqa: ARG001
    """The mean of each channel over the training images: the fill of the original ROAR.

    Source: Hooker et al. 2019, section 3 (arXiv:1806.10758).
    """
    return _flat(images, mean)


def constant(images: Images, removed: Mask, *, value: float | Sequence[float] = 0.0) -> Images:  # noqa: ARG001
    """One colour. value: in [0, 1], one number or one a channel."""
    return _flat(images, [value] * images.shape[1] if isinstance(value, int | float) else value)


def blur(images: Images, removed: Mask, *, sigma: float = 5.0) -> Images:  # noqa: ARG001
    """The image itself, blurred: no colour that is foreign to it, no fine structure left.

    sigma: width of the Gaussian in pixels. It sees the removed pixels' own values, so a faint trace of them stays.
    Source: Petsiuk et al. 2018, section 3.2 (arXiv:1806.07421).
    """
    return gaussian_blur(images, sigma=sigma)


def _flat(images: Tensor, values: Float[Tensor, " c"] | Sequence[float]) -> Tensor:
    fill = torch.as_tensor(values, dtype=images.dtype, device=images.device)
    if len(fill) != images.shape[1]:
        raise ValueError(
            f"the fill has {len(fill)} values, the images {images.shape[1]} channels; give one value a channel"
        )
    return fill[:, None, None].expand_as(images)
