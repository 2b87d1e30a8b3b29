"""Random numbers of an image: they are the same for any batch size, any device and any order of work.

A generator yields its numbers in the order of the calls, so one batch of 64 and two batches of 32 would give an image
different noise. Here a number is a hash of (seed of the image, position), after Steele, Lea & Flood 2014 (SplitMix64).
"""

import contextlib
import hashlib
import math
import random
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from efface.base.types import Seeds

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number: the step of SplitMix64
_MIX = (-4658895280553007687, -7723592293110705685)  # its two multipliers, 0xBF58476D1CE4E5B9 and 0x94D049BB133111EB
_PIECE = 1 << 15  # numbers in one piece, 256 KB; measured: 2^14 to 2^17 are fastest on a CPU


def uniform(seeds: Seeds, shape: tuple[int, ...]) -> Float[Tensor, "n ..."]:
    """Return uniform numbers in [0, 1), float32, of the given shape for each seed."""
    numbers = torch.empty(len(seeds), math.prod(shape), device=seeds.device)
    for rows, columns, bits in _pieces(seeds, numbers.shape[1]):
        numbers[rows, columns] = bits.bitwise_right_shift_(40).bitwise_and_(0xFFFFFF)
    return numbers.mul_(2.0**-24).reshape(len(seeds), *shape)


def normal(seeds: Seeds, shape: tuple[int, ...]) -> Float[Tensor, "n ..."]:
    """Return standard normal numbers, float32, of the given shape for each seed; their size is at most 5.9.

    The cost is about twice that of `torch.randn`. Source: Box & Muller 1958, both numbers of each pair.
    """
    count = math.prod(shape)
    pairs = (count + 1) // 2
    numbers = torch.empty(len(seeds), 2, pairs, device=seeds.device)
    for rows, columns, bits in _pieces(seeds, pairs):
        angle = bits.bitwise_and(0xFFFFFF).float().mul_(2 * math.pi * 2.0**-24)
        bits.bitwise_right_shift_(40).bitwise_and_(0xFFFFFF)
        radius = bits.float().add_(0.5).mul_(2.0**-24).log_().mul_(-2.0).sqrt_()  # + 0.5: no logarithm of 0
        numbers[rows, 0, columns] = angle.cos().mul_(radius)
        numbers[rows, 1, columns] = angle.sin_().mul_(radius)
    return numbers.flatten(1)[:, :count].reshape(len(seeds), *shape)


def keys(seeds: Seeds, count: int) -> Int[Tensor, "n count"]:
    """Return `count` random 64-bit numbers for each seed. Sorting by them shuffles."""
    numbers = torch.empty(len(seeds), count, dtype=torch.int64, device=seeds.device)
    for rows, columns, bits in _pieces(seeds, count):
        numbers[rows, columns] = bits
    return numbers


def fold(seeds: Seeds, number: int) -> Seeds:
    """Return new seeds that are independent of the old ones, other seeds for each `number`."""
    return _mix(seeds + _wrap(_wrap(number + 1) * _GOLDEN))


def seeds_of(text: str, indices: Int[Tensor, " n"]) -> Seeds:
    """Return one seed for each row number. The text names the purpose of the random numbers."""
    start = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)
    return _mix(_mix(indices.long() + 1) + start)


def seed_of(text: str) -> int:
    """Return one seed in [0, 2^63) for a whole piece of work. The text names the work."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def seed_torch(seed: int) -> None:
    """Seed torch's generators of all devices. Without an accelerator it takes a hundredth of `torch.manual_seed`."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # `manual_seed` keeps a trace of its caller for each kind of device that may come
        torch.default_generator.manual_seed(seed)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch, NumPy and Python inside the block, for code that takes no seeds; then restore their states."""
    before, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002  older code uses this generator
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        seed_torch(seed % (1 << 63))
        random.seed(seed)
        np.random.seed(seed % (1 << 32))  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(legacy)  # noqa: NPY002


def _pieces(seeds: Seeds, count: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield `count` hashes for each seed, in pieces that fit in the processor's cache, with their rows and columns."""
    size = _PIECE if seeds.device.type == "cpu" else _PIECE << 8
    steps = torch.arange(1, count + 1, dtype=torch.int64, device=seeds.device).mul_(_GOLDEN)
    for first in range(0, len(seeds), high := max(1, size // max(1, count))):
        rows = slice(first, first + high)
        for left in range(0, count, size):
            columns = slice(left, left + size)
            yield rows, columns, _mix(seeds[rows, None] + steps[columns])


def _mix(z: Tensor) -> Tensor:
    """Apply SplitMix64's last step, in place."""
    spare = torch.empty_like(z)
    for by, factor in ((30, _MIX[0]), (27, _MIX[1]), (31, 1)):
        torch.bitwise_right_shift(z, by, out=spare)
        z.bitwise_xor_(spare.bitwise_and_((1 << (64 - by)) - 1))  # unsigned shift: torch's shift copies the sign bit
        if factor != 1:
            z.mul_(factor)
    return z


def _wrap(number: int) -> int:
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
