"""What happens to a map between the file and the ranking: each map on its own, sign and channels an explicit choice."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from efface.erase import blur
from efface.types import Maps


def apply_post(maps: Maps, post: Sequence[Callable[[Maps], Maps]]) -> Maps:
    """The maps after each step of `post`, in its order."""
    for step in post:
        maps = step(maps)
    return maps


def absolute(maps: Maps) -> Maps:
    """Size of each value: evidence against the class counts like evidence for it."""
    return maps.abs()


def square(maps: Maps) -> Maps:
    """Square of each value: ranks features as `absolute` does, but weighs large ones more when channels are summed."""
    return maps.square()


def positive(maps: Maps) -> Maps:
    """Evidence for the class alone: what is negative becomes 0, so those places tie."""
    return maps.clamp(min=0)


def channel_sum(maps: Maps) -> Float[Tensor, "n h w"]:
    """Sum over channels; maps without channels pass unchanged."""
    return maps.sum(1) if maps.ndim == 4 else maps


def channel_max(maps: Maps) -> Float[Tensor, "n h w"]:
    """Largest value over channels; maps without channels pass unchanged."""
    return maps.amax(1) if maps.ndim == 4 else maps


def channel_std(maps: Maps) -> Float[Tensor, "n h w"]:
    """Standard deviation over channels, divided by channels - 1. ValueError: maps of fewer than 2 channels."""
    if maps.ndim != 4 or maps.shape[1] < 2:
        found = f"{maps.shape[1]}" if maps.ndim == 4 else "no"
        raise ValueError(
            f"post: channel_std got maps of {found} channels; expected at least 2: take a method whose maps have the "
            "images' channels, or another reduction such as efface.erase.post.absolute and channel_sum"
        )
    return maps.std(1)


def gaussian_blur(maps: Maps, *, sigma: float, kernel: int | None = None) -> Maps:
    """Each map averaged with Gaussian weights, the border repeated outwards: fine grain is pooled into regions.

    sigma: standard deviation in pixels, above 0.
    kernel: pixels across, odd; by default 4 sigma to each side.
    """
    if maps.ndim == 4:
        return blur.gaussian_blur(maps, sigma=sigma, kernel=kernel)
    return blur.gaussian_blur(maps[:, None], sigma=sigma, kernel=kernel)[:, 0]


def max_filter(maps: Maps, *, size: int) -> Maps:
    """Largest value of a square around each place, cut off at the border: single peaks grow to regions.

    size: pixels across, odd; 1 changes nothing.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size is {size}; expected an odd number of pixels such as {abs(size) + 1}")
    planes = maps[:, None] if maps.ndim == 3 else maps
    reach = size // 2  # a square is two lines, one after the other: 2 size comparisons instead of size^2
    planes = F.max_pool2d(planes, (size, 1), stride=1, padding=(reach, 0))
    return F.max_pool2d(planes, (1, size), stride=1, padding=(0, reach)).reshape(maps.shape)


def normalise(maps: Maps) -> Maps:
    """Each map divided by its largest size over all places and channels: within [-1, 1], zero and rank kept.

    A map of zeros stays one. For showing and averaging maps; a ranking is the same without.
    """
    largest = maps.abs().flatten(1).amax(1).reshape(-1, *(1,) * (maps.ndim - 1))
    return maps / largest.where(largest > 0, 1)
