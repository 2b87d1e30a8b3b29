"""Vectors with a known signal in each coordinate: images of one row, n 1 1 d, with the signal as their mask.

A vector x in [-1, 1] is stored in 8 bits as the level 128 + 127 x. The values -1, 0 and 1 are exact; others are rounded
to steps of 1/127. The network `efface.models.small.mlp` with `centred: true` maps the levels back to x. An attack of
radius eps in x has the radius 127/255 eps on the images: 0.45 becomes 0.2241. Its box [0, 1] is [-1.008, 1] in x.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from efface.base.draws import fold, keys, normal, seeds_of, uniform
from efface.base.types import VECTOR_ONE, VECTOR_ZERO, Seeds, Split, StoredImages, Targets
from efface.data.subset import splits
from efface.plug.facts import states

CLASSES = ("-1", "+1")


@states(is_synthetic=True)
def one_signal(
    *,
    d: int = 10,
    n_train: int = 10_000,
    n_test: int = 1_000,
    signals: int = 1,
    amplitude: Sequence[float] = (1.0, 1.0),
    first: float | None = None,
    limit: int | None = None,
    test_limit: int | None = None,
    validation: float = 0.0,
    seed: int = 0,
) -> dict[str, Split]:
    """Vectors of zeros with a signal in one random coordinate of each vector: -1 or +1, the class.

    The mean is 0, and the matrix of second moments is 1/d times the identity. A linear network with equal weights for
    all coordinates is always right. Vector i depends only on the settings, the seed, the split and i.

    d: number of coordinates, at least 2.
    n_train: number of training vectors, at least 2; a fair coin gives the class of each.
    n_test: number of test vectors, at least 2; a fair coin gives the class of each.
    signals: number of coordinates with a signal, at least 1; at most d, or d - 1 with `first`.
    amplitude: least and largest size of a signal, above 0; drawn uniformly for each coordinate. If the largest exceeds
        1, all entries are divided by it, so that they fit in [-1, 1]. The eps of an attack shrinks by the same factor.
    first: probability that coordinate 0 is the only signal; otherwise the signals are among the other coordinates.
        None: always that many signals, and all coordinates are equally likely.
    limit: number of training vectors, a balanced choice; None takes all.
    test_limit: number of test vectors, a balanced choice; None takes all.
    validation: share of the training vectors that is held out, stratified, in [0, 1).
    seed: seeds the vectors, both choices and the validation vectors.

    Source: the released notebook and code of Shah, Jain & Netrapalli 2021, version 1, section 5 (arXiv:2102.12781v1):
        RandomSignalCoordinate, and SemiRandomSignalCoordinate with `first`.
    Differs: rounding to 8 bits, which changes no value if the amplitude is 1; the division for larger ones.
    """
    alone_at_first = 1 / max(d, 1) if first is None else first
    low, high = min(amplitude), max(amplitude)
    most = d if first is None else d - 1
    for setting, given, good, expected in (
        ("d", d, d >= 2, "2 coordinates or more"),
        ("signals", signals, 1 <= signals <= most, f"1 to {most}"),
        (
            "amplitude",
            list(amplitude),
            list(amplitude) == [low, high] and low > 0 and math.isfinite(high),
            "two sizes above 0, the least first",
        ),
        ("first", first, 0 <= alone_at_first <= 1, "a chance from 0 to 1"),
    ):
        _check("one_signal", setting, given, good, expected)

    def draw(seeds: Seeds, targets: Targets) -> tuple[Float[Tensor, "n d"], Bool[Tensor, "n d"]]:
        chosen = torch.zeros(len(seeds), d, dtype=torch.bool)
        if first is None and signals > 1:
            chosen.scatter_(1, keys(fold(seeds, 2), d).argsort(dim=1)[:, :signals], True)
        else:  # a single signal: coordinate 0 with probability 1 / d, so all are equally likely
            chosen.scatter_(1, keys(fold(seeds, 2), d - 1).argsort(dim=1)[:, :signals] + 1, True)
            alone = uniform(fold(seeds, 1), (1,)) < alone_at_first
            chosen = torch.where(alone, torch.arange(d) == 0, chosen)
        sizes = low + (high - low) * uniform(fold(seeds, 3), (d,))
        return chosen * (sizes / max(1.0, high)) * _signs(targets)[:, None], chosen

    made = {name: _split(f"one_signal {seed} {name}", count, draw) for name, count in _counts(n_train, n_test)}
    return splits(**made, limit=limit, test_limit=test_limit, validation=validation, seed=seed)


@states(is_synthetic=True)
def blockwise(
    *,
    d: int = 10,
    size: int = 1,
    relevant: int | None = None,
    eta: float = 0.0,
    n_train: int = 10_000,
    n_test: int = 1_000,
    limit: int | None = None,
    test_limit: int | None = None,
    validation: float = 0.0,
    seed: int = 0,
) -> dict[str, Split]:
    """Vectors of d blocks. One random relevant block of each vector carries the class; all blocks have some noise.

    The signal is plus or minus the unit vector of equal entries. The noise of each block is eta times a vector drawn
    uniformly from the unit ball. If the largest possible entry exceeds 1, all entries are divided by it, so that they
    fit in [-1, 1]. For blocks of one coordinate this divisor is 1 + eta. The eps of an attack shrinks by the same
    factor. The other settings are those of `one_signal`.

    d: number of blocks, at least 2.
    size: coordinates of a block, at least 1.
    relevant: number of blocks, from the first on, that may carry the class, 1 to d; None: half of them. The other
        blocks contain only noise.
    eta: radius of the noise, at least 0.

    Source: Shah, Jain & Netrapalli 2021 (NeurIPS), section 5, the simplified BlockMNIST (arXiv:2102.12781).
    Differs: the unit vector that carries the class has equal entries, which the paper leaves open; 8 bits.
    """
    half = d // 2 if relevant is None else relevant
    for setting, given, good, expected in (
        ("d", d, d >= 2, "2 blocks or more"),
        ("size", size, size >= 1, "1 coordinate or more"),
        ("relevant", relevant, 1 <= half <= d, f"1 to {d} blocks"),
        ("eta", eta, eta >= 0, "a radius of at least 0"),
    ):
        _check("blockwise", setting, given, good, expected)
    unit = size**-0.5

    def draw(seeds: Seeds, targets: Targets) -> tuple[Float[Tensor, "n d"], Bool[Tensor, "n d"]]:
        carrying = (uniform(fold(seeds, 1), (1,)) * half).long() == torch.arange(d)
        directions = normal(fold(seeds, 2), (d, size))
        lengths = uniform(fold(seeds, 3), (d, 1)) ** (1 / size)
        noise = eta * lengths * directions / directions.norm(dim=2, keepdim=True)
        blocks = noise + unit * (carrying * _signs(targets)[:, None])[:, :, None]
        return (blocks / max(1.0, unit + eta)).flatten(1), carrying.repeat_interleave(size, dim=1)

    made = {name: _split(f"blockwise {seed} {name}", count, draw) for name, count in _counts(n_train, n_test)}
    return splits(**made, limit=limit, test_limit=test_limit, validation=validation, seed=seed)


def stored(vectors: Float[Tensor, "n d"]) -> StoredImages:
    """Return vectors in [-1, 1] as images of one row, in 8 bits."""
    return (VECTOR_ZERO + VECTOR_ONE * vectors).round().clamp(0, 255).to(torch.uint8)[:, None, None]


Draw = Callable[[Seeds, Targets], tuple[Float[Tensor, "n d"], Bool[Tensor, "n d"]]]
"""Function of the seeds and classes of some vectors. It returns the vectors and the mask of their signal."""


def _split(purpose: str, count: int, draw: Draw) -> Split:
    seeds = seeds_of(purpose, torch.arange(count))
    targets = (uniform(fold(seeds, 0), (1,))[:, 0] < 0.5).long()
    vectors, signal = draw(seeds, targets)
    return Split(stored(vectors), targets, CLASSES, signal[:, None])


def _signs(targets: Targets) -> Float[Tensor, " n"]:
    return 2.0 * targets - 1


def _counts(n_train: int, n_test: int) -> list[tuple[str, int]]:
    counts = [("train", n_train), ("test", n_test)]
    for name, count in counts:
        if count < len(CLASSES):
            raise ValueError(f"n_{name}: {count}, expected {len(CLASSES)} (as many as classes) or more; change it")
    return counts


def _check(where: str, setting: str, given: object, good: bool, expected: str) -> None:  # noqa: FBT001
    if not good:
        raise ValueError(f"{where}: {setting} is {given}, expected {expected}; change it")
