"""Gaussian blur, used for images and for maps."""

import torch
from jaxtyping import Float
from torch import Tensor

from efface.types import Images


def gaussian_blur(images: Images, *, sigma: float, kernel: int | None = None) -> Images:
    """Blur each channel with Gaussian weights. The border is repeated outwards, so a flat image does not change.

    Each axis is one matrix product, so the cost grows with the image and not with the kernel. Any kernel size is
    possible.

    sigma: standard deviation in pixels, above 0.
    kernel: odd width in pixels. Default: 4 sigma to each side, as in SciPy's `gaussian_filter(mode="nearest")`.
    """
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}; expected pixels above 0: drop the blur if you want none")
    if kernel is not None and (kernel < 1 or kernel % 2 == 0):
        raise ValueError(f"kernel is {kernel}; expected an odd number of pixels such as {abs(kernel) + 1}")
    reach = int(4 * sigma + 0.5) if kernel is None else kernel // 2
    h, w = images.shape[2:]
    return _weights(h, sigma, reach, images) @ images @ _weights(w, sigma, reach, images).T


def _weights(size: int, sigma: float, reach: int, like: Tensor) -> Float[Tensor, "size size"]:
    """Return the weight of each pixel in each blurred pixel (row). Weights beyond the border go to the border pixel."""
    offsets = torch.arange(-reach, reach + 1)
    gaussian = (-0.5 * (offsets.double() / sigma).square()).exp()
    gaussian /= gaussian.sum()
    giver = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    weights = torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, giver, gaussian.expand(size, -1))
    return weights.to(like.device, like.dtype)
