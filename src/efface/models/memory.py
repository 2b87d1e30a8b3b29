"""How many images go into one forward pass."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

Found = TypeVar("Found")


def blocks(count: int, max_batch: int) -> Iterator[slice]:
    """Slices of at most `max_batch` images that cover them all."""
    at_least_one("max_batch", max_batch)
    return (slice(start, min(start + max_batch, count)) for start in range(0, count, max_batch))


def at_once(images: Tensor, max_batch: int) -> int:
    """Images in a pass that keeps nothing for a way back: at most `max_batch`, or what a CPU's cache holds.

    Measured: a ResNet20 answers 256 images of 32x32 in passes of 32 in three quarters of the time of one pass, a
    SqueezeNet images of 224x224 in passes of 6 in three quarters of the time of passes of 8.
    """
    if images.device.type != "cpu":
        return max_batch
    return min(max_batch, max(6, (1 << 15) // max(1, images.shape[-2] * images.shape[-1])))


def with_smaller_batches(
    compute: Callable[[int], Found], max_batch: int, *, halved: Callable[[int], None] | None = None
) -> Found:
    """What `compute(max_batch)` gives; when memory runs out, it is called again with half as many images in a pass.

    halved: is told each smaller number before the next attempt.
    torch.OutOfMemoryError: one image at a time is too much.
    """
    while True:
        try:
            return compute(max_batch)
        except torch.OutOfMemoryError:
            if max_batch == 1:
                raise
        max_batch //= 2  # outside of the handler, whose traceback holds the tensors of the attempt
        torch.cuda.empty_cache()
        if halved is not None:
            halved(max_batch)


def at_least_one(setting: str, number: int) -> None:
    """Refuse a count below one."""
    if number < 1:
        raise ValueError(f"{setting} is {number}; expected a whole number of at least 1: raise it")
