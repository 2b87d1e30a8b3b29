"""Random numbers that belong to an image: the same for any batch size, any device, any order of work.

A generator hands out its numbers in the order of the calls, so a batch of 64 and two of 32 would give an image
different noise. Here a number is a hash of (seed of the image, position), after Steele, Lea & Flood 2014 (SplitMix64).
"""

import hashlib
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from efface.types import Seeds

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number: the step of SplitMix64
_MIX = (-4658895280553007687, -7723592293110705685)  # its two multipliers, 0xBF58476D1CE4E5B9 and 0x94D049BB133111EB


def uniform(seeds: Seeds, shape: tuple[int, ...]) -> Float[Tensor, "n ..."]:
    """Numbers in [0, 1), float32, `shape` of them for each seed."""
    return (_bits(seeds, shape) >> 40).bitwise_and_(0xFFFFFF).float().mul_(2.0**-24)


def normal(seeds: Seeds, shape: tuple[int, ...]) -> Float[Tensor, "n ..."]:
    """Standard normal numbers, float32, `shape` of them for each seed (Box & Muller 1958)."""
    bits = _bits(seeds, shape)
    angle = (bits & 0xFFFFFF).double().mul_(2 * math.pi * 2.0**-24)
    radius = ((bits >> 40) & 0xFFFFFF).double().add_(1.0).mul_(2.0**-24).log_().mul_(-2.0).sqrt_()
    return radius.mul_(angle.cos_()).float()


def keys(seeds: Seeds, count: int) -> Int[Tensor, "n count"]:
    """`count` random 64-bit numbers for each seed; sorting by them shuffles."""
    return _bits(seeds, (count,))


def fold(seeds: Seeds, number: int) -> Seeds:
    """New seeds, independent of the old ones: one set for each `number`."""
    return _mix(seeds + _wrap(_wrap(number + 1) * _GOLDEN))


def seeds_of(text: str, rows: Int[Tensor, " n"]) -> Seeds:
    """One seed for each row number, by a text that names what the numbers are for."""
    start = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)
    return _mix(_mix(rows.long() + 1) + start)


def seed_of(text: str) -> int:
    """One seed in [0, 2^63) for a whole piece of work, by a text that names it."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def _bits(seeds: Seeds, shape: tuple[int, ...]) -> Int[Tensor, "n ..."]:
    count = math.prod(shape)
    steps = torch.arange(1, count + 1, dtype=torch.int64, device=seeds.device) * _GOLDEN
    return _mix(seeds[:, None] + steps).reshape(len(seeds), *shape)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _MIX[0]
    z = (z ^ _shift(z, 27)) * _MIX[1]
    return z ^ _shift(z, 31)


def _shift(z: Tensor, by: int) -> Tensor:
    """Shift right as an unsigned number would (torch's shift drags the sign along)."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def _wrap(number: int) -> int:
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
