"""Blur of images and of maps: with Gaussian weights, or with any weights that are the same for both axes."""

import torch
from jaxtyping import Float
from torch import Tensor

from efface.base.types import Images


def gaussian_blur(images: Images, *, sigma: float, kernel: int | None = None) -> Images:
    """Blur each channel with Gaussian weights. The border is repeated outwards, so a flat image does not change.

    sigma: standard deviation in pixels, above 0.
    kernel: odd width in pixels. Default: 4 sigma to each side, as in SciPy's `gaussian_filter(mode="nearest")`.
    """
    _check(sigma, kernel)
    return weighted(images, _gaussian(sigma, _reach(sigma) if kernel is None else kernel // 2), repeated=True)


def spot_weights(*, sigma: float, kernel: int) -> Float[Tensor, " kernel"]:
    """Return the weights of one axis of a single bright pixel, blurred within a window of `kernel` pixels.

    The window is mirrored at its edges, so no light is lost, and the weights are flatter than those of a Gaussian. The
    product of both axes is what SciPy's `gaussian_filter` makes of such a window. Float64.

    sigma: standard deviation in pixels, above 0. kernel: odd width in pixels.
    """
    _check(sigma, kernel)
    reach = _reach(sigma)
    places = torch.arange(-reach, reach + 1) + kernel // 2
    places = places.remainder(2 * kernel)  # "d c b a | a b c d | d c b a" has twice the window as its period
    places = torch.where(places < kernel, places, 2 * kernel - 1 - places)
    return torch.zeros(kernel, dtype=torch.float64).scatter_add_(0, places, _gaussian(sigma, reach))


def weighted(images: Images, weights: Float[Tensor, " k"], *, repeated: bool) -> Images:
    """Return for each pixel the weighted sum of the pixels around it, with the same weights along both axes.

    Each axis is one matrix product, so the cost grows with the image and not with the kernel. Any kernel size is
    possible.

    weights: for offsets from -(k // 2) to k // 2, k odd.
    repeated: True: the border is repeated outwards. False: there is 0 beyond it.
    """
    h, w = images.shape[2:]
    return _matrix(h, weights, images, repeated) @ images @ _matrix(w, weights, images, repeated).T


def _matrix(size: int, weights: Tensor, like: Tensor, repeated: bool) -> Float[Tensor, "size size"]:  # noqa: FBT001
    """Return the weight of each pixel in each blurred pixel (row). Weights beyond the border go to the border pixel."""
    reach = len(weights) // 2
    giver = torch.arange(size)[:, None] + torch.arange(-reach, reach + 1)
    near = giver.clamp(0, size - 1)
    given = weights.expand(size, -1) if repeated else weights * (giver == near)
    matrix = torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, near, given)
    return matrix.to(like.device, like.dtype)


def _gaussian(sigma: float, reach: int) -> Float[Tensor, " k"]:
    gaussian = (-0.5 * (torch.arange(-reach, reach + 1).double() / sigma).square()).exp()
    return gaussian / gaussian.sum()


def _reach(sigma: float) -> int:
    return int(4 * sigma + 0.5)


def _check(sigma: float, kernel: int | None) -> None:
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}; expected pixels above 0: drop the blur if you want none")
    if kernel is not None and (kernel < 1 or kernel % 2 == 0):
        raise ValueError(f"kernel is {kernel}; expected an odd number of pixels such as {abs(kernel) + 1}")
