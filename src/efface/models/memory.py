"""How many images go into one forward pass."""

from collections.abc import Iterator

from torch import Tensor


def blocks(count: int, rows: int) -> Iterator[slice]:
    """Slices of at most `rows` images that cover them all."""
    at_least_one("rows", rows)
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def at_once(images: Tensor, rows: int) -> int:
    """Images in a pass that keeps nothing for a way back: at most `rows`, on a CPU so few that its cache holds them.

    Measured: a ResNet20 answers 256 images of 32x32 in passes of 32 in three quarters of the time of one pass, a
    SqueezeNet images of 224x224 in passes of 6 in three quarters of the time of passes of 8.
    """
    if images.device.type != "cpu":
        return rows
    return min(rows, max(6, (1 << 15) // max(1, images.shape[-2] * images.shape[-1])))


def at_least_one(setting: str, number: int) -> None:
    """Refuse a count below one."""
    if number < 1:
        raise ValueError(f"{setting} is {number}; expected a whole number of at least 1: raise it")
