"""What happens to a map between the file and the ranking: each map on its own, sign and channels an explicit choice."""

from jaxtyping import Float
from torch import Tensor

from efface.types import Maps


def absolute(maps: Maps) -> Maps:
    """Size of each value: evidence against the class counts like evidence for it."""
    return maps.abs()


def square(maps: Maps) -> Maps:
    """Square of each value: ranks features as `absolute` does, but weighs large ones more when channels are summed."""
    return maps.square()


def channel_sum(maps: Maps) -> Float[Tensor, "n h w"]:
    """Sum over channels; maps without channels pass unchanged."""
    return maps.sum(1) if maps.ndim == 4 else maps


def channel_max(maps: Maps) -> Float[Tensor, "n h w"]:
    """Largest value over channels; maps without channels pass unchanged."""
    return maps.amax(1) if maps.ndim == 4 else maps
