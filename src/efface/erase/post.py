"""Functions for `post`, which change a map before it is ranked. Each map is changed independently of the others.

They make the treatment of signs and channels an explicit choice.
"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from efface.base.types import Maps
from efface.erase import blur
from efface.erase.contract import checked_post


def apply_post(maps: Maps, post: Sequence[Callable[[Maps], Maps]]) -> Maps:
    """Return the maps after each step of `post`, in order. ValueError: a step does not return maps of the same size."""
    for step in post:
        maps = checked_post(step, step(maps), maps)
    return maps


def absolute(maps: Maps) -> Maps:
    """Absolute values. Evidence against the class counts like evidence for it."""
    return maps.abs()


def square(maps: Maps) -> Maps:
    """Squared values. Features rank as with `absolute`, but large values weigh more in a sum over channels."""
    return maps.square()


def positive(maps: Maps) -> Maps:
    """Evidence for the class only. Negative values become 0, so their places tie."""
    return maps.clamp(min=0)


def channel_sum(maps: Maps) -> Float[Tensor, "n h w"]:
    """Sum over channels. Maps without channels do not change."""
    return maps.sum(1) if maps.ndim == 4 else maps


def channel_max(maps: Maps) -> Float[Tensor, "n h w"]:
    """Largest value over channels. Maps without channels do not change."""
    return maps.amax(1) if maps.ndim == 4 else maps


def channel_std(maps: Maps) -> Float[Tensor, "n h w"]:
    """Standard deviation over channels, with the divisor channels - 1. ValueError: maps of fewer than 2 channels."""
    if maps.ndim != 4 or maps.shape[1] < 2:
        channels = f"{maps.shape[1]}" if maps.ndim == 4 else "no"
        raise ValueError(
            f"post: channel_std got maps of {channels} channels; expected at least 2: take a method whose maps have "
            "the images' channels, or another reduction, such as absolute and channel_sum"
        )
    return maps.std(1)


def gaussian_blur(maps: Maps, *, sigma: float, kernel: int | None = None) -> Maps:
    """Blur each map with Gaussian weights, with the border repeated outwards. Fine grain becomes regions.

    sigma: standard deviation in pixels, above 0.
    kernel: odd width in pixels. Default: 4 sigma to each side.
    """
    if maps.ndim == 4:
        return blur.gaussian_blur(maps, sigma=sigma, kernel=kernel)
    return blur.gaussian_blur(maps[:, None], sigma=sigma, kernel=kernel)[:, 0]


def max_filter(maps: Maps, *, size: int) -> Maps:
    """Largest value in a square around each place, clipped at the border. Single peaks become regions.

    size: odd width in pixels. 1 changes nothing.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size is {size}; expected an odd number of pixels such as {abs(size) + 1}")
    planes = maps[:, None] if maps.ndim == 3 else maps
    reach = size // 2  # a column, then a row: 2 size comparisons instead of size^2
    planes = F.max_pool2d(planes, (size, 1), stride=1, padding=(reach, 0))
    return F.max_pool2d(planes, (1, size), stride=1, padding=(0, reach)).reshape(maps.shape)


def normalise(maps: Maps) -> Maps:
    """Divide each map by its largest absolute value over all places and channels. The result lies in [-1, 1].

    Zeros and ranks do not change, and a map of zeros stays zero. Use it to show or to average maps; a ranking is the
    same without it.
    """
    largest = maps.abs().flatten(1).amax(1).reshape(-1, *(1,) * (maps.ndim - 1))
    return maps / largest.where(largest > 0, 1)
