"""Number of images in one forward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        except torch.OutOfMemoryError as error:
            if max_batch == 1:
                raise torch.OutOfMemoryError(
                    f"the memory does not suffice for one image in a pass ({_first_sentence(error)}); set memory_gb=0, "
                    "so that the images stay in files, let fewer workers share the device, or set device=cpu"
                ) from error
        max_batch //= 2  # outside the handler, for its traceback keeps the tensors of the attempt
        torch.cuda.empty_cache()
        if halved is not None:
            halved(max_batch)


@contextmanager
def memory_for_a_step(count: int) -> Iterator[None]:
    """Say what helps when memory runs out in a training step. Half as many images would be another training.

    count: images of the step.

    ValueError: the memory does not suffice for the step.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"fit.batch_size: the memory does not suffice for a training step of {count} images "
            f"({_first_sentence(error)}); lower batch_size, which is another training, set fit.precision to bf16, or "
            "let fewer workers share the device"
        ) from error


class Onwards:
    """Progress of work that may start again: what was reported once is not reported again.

    advance: function that gets the new progress.
    """

    def __init__(self, advance: Callable[[float], None]) -> None:
        self._advance, self._most, self._now = advance, 0.0, 0.0

    def __call__(self, done: float) -> None:
        self._now += done
        if self._now > self._most:
            self._advance(self._now - self._most)
            self._most = self._now

    def restart(self) -> None:
        """Start again from 0."""
        self._now = 0.0


def _first_sentence(error: BaseException) -> str:
    return str(error).split(". ")[0]


def at_least_one(setting: str, number: int) -> None:
    """Raise ValueError for a number below one."""
    if number < 1:
        raise ValueError(f"{setting} is {number}; expected a whole number of at least 1: raise it")
