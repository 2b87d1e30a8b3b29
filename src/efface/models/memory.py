"""Number of images in one forward pass."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

Found = TypeVar("Found")


def blocks(count: int, max_batch: int) -> Iterator[slice]:
    """Return slices of at most `max_batch` images that cover all images."""
    at_least_one("max_batch", max_batch)
    return (slice(start, min(start + max_batch, count)) for start in range(0, count, max_batch))


def at_once(images: Tensor, max_batch: int) -> int:
    """Return the number of images in a forward pass without gradients.

    It is at most `max_batch`. On a CPU it is also at most the number of images that fit into the cache. Measured: 256
    images of 32x32 take a ResNet20 three quarters of the time in passes of 32, compared with one pass. Images of
    224x224 take a SqueezeNet three quarters of the time in passes of 6, compared with passes of 8.
    """
    if images.device.type != "cpu":
        return max_batch
    return min(max_batch, max(6, (1 << 15) // max(1, images.shape[-2] * images.shape[-1])))


def with_smaller_batches(
    compute: Callable[[int], Found], max_batch: int, *, halved: Callable[[int], None] | None = None
) -> Found:
    """Return `compute(max_batch)`. When memory runs out, call it again with half as many images in a pass.

    halved: function that gets each smaller number before the next attempt.

    torch.OutOfMemoryError: the memory does not suffice for one image in a pass.
    """
    while True:
        try:
            return compute(max_batch)
        except torch.OutOfMemoryError:
            if max_batch == 1:
                raise
        max_batch //= 2  # outside the handler, for its traceback keeps the tensors of the attempt
        torch.cuda.empty_cache()
        if halved is not None:
            halved(max_batch)


def at_least_one(setting: str, number: int) -> None:
    """Raise ValueError for a number below one."""
    if number < 1:
        raise ValueError(f"{setting} is {number}; expected a whole number of at least 1: raise it")
