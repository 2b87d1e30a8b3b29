"""Scores of images: do intervals of a mean, and of a paired difference, cover the truth?"""

from collections.abc import Callable

import numpy as np

from efface.report.stats import image_estimates
from verdicts.line import head, line, share

Made = tuple[np.ndarray, float, tuple[float, float] | None]
"""Scores of images x runs, the true mean, and the range of the scores."""
SIZES = (20, 50, 128, 500)
UNIT = (0.0, 1.0)


def means(runs: int, generator: np.random.Generator, *, quick: bool = False) -> None:
    """Print how often the interval of a mean covers."""
    _print(runs, generator, _MEANS, difference=False, quick=quick)


def pairs(runs: int, generator: np.random.Generator, *, quick: bool = False) -> None:
    """Print how often the interval of a paired difference covers, and how often a true 0 gets a verdict."""
    _print(runs, generator, _PAIRS, difference=True, quick=quick)


def _print(
    runs: int,
    generator: np.random.Generator,
    kinds: dict[str, Callable[[np.random.Generator, tuple[int, int]], Made]],
    *,
    difference: bool,
    quick: bool,
) -> None:
    head("scores", "images", "interval covers", "no interval", "no test", "test of the true mean rejects at 5 %")
    for name, make in kinds.items():
        for n in SIZES[:1] if quick else SIZES:
            values, truth, bounds = make(generator, (n, runs))
            found = image_estimates(values, bounds=bounds, difference=difference)
            known = [each for each in found if not np.isnan(each.interval.low)]
            covered = [each.interval.low - 1e-9 <= truth <= each.interval.high + 1e-9 for each in known]
            tested = [each for each in found if not np.isnan(each.p)]
            wrong = [not each.interval.low <= truth <= each.interval.high and not np.isnan(each.p) for each in found]
            without = share([np.isnan(each.p) for each in found]) if difference or bounds is None else "-"
            rejects = share(wrong) if tested else "-"
            line(name, n, share(covered), share([np.isnan(each.interval.low) for each in found]), without, rejects)


def _right(p: float) -> Callable[[np.random.Generator, tuple[int, int]], Made]:
    return lambda generator, shape: ((generator.random(shape) < p) * 1.0, p, UNIT)


def _five_points(generator: np.random.Generator, shape: tuple[int, int]) -> Made:
    """An accuracy curve of five points: 3 % of the images fall somewhere."""
    hard = generator.random(shape) < 0.03
    return np.where(hard, generator.integers(0, 5, shape), 5) / 5, 0.97 + 0.03 * 0.4, UNIT


_MEANS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Made]] = {
    "normal": lambda generator, shape: (generator.normal(size=shape), 0.0, None),
    "exponential": lambda generator, shape: (generator.exponential(size=shape), 1.0, None),
    "log-normal, sigma 0.5": lambda generator, shape: (generator.lognormal(0, 0.5, shape), np.exp(0.125), None),
    "log-normal, sigma 1": lambda generator, shape: (generator.lognormal(0, 1, shape), np.exp(0.5), None),
    "AOPC-like, beta(0.4, 1.2)": lambda generator, shape: (generator.beta(0.4, 1.2, shape), 0.25, UNIT),
    "probability, beta(1, 0.1)": lambda generator, shape: (generator.beta(1, 0.1, shape), 1 / 1.1, UNIT),
    "right with p = .8": _right(0.8),
    "right with p = .98": _right(0.98),
    "accuracy curve, 3 % fall": _five_points,
}


def _paired(first: float, second: float, *, nested: bool) -> Callable[[np.random.Generator, tuple[int, int]], Made]:
    def make(generator: np.random.Generator, shape: tuple[int, int]) -> Made:
        one = generator.random(shape)
        other = one if nested else generator.random(shape)
        return (one < first) * 1.0 - (other < second), first - second, UNIT

    return make


def _rarely_apart(generator: np.random.Generator, shape: tuple[int, int]) -> Made:
    moved = generator.random(shape) < 0.2
    one = generator.random(shape) < 0.8
    return one * 1.0 - np.where(moved, generator.random(shape) < 0.7, one), 0.02, UNIT


_PAIRS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Made]] = {
    "normal": lambda generator, shape: (generator.normal(size=shape), 0.0, None),
    "exponential - 1.3 exponential": lambda generator, shape: (
        generator.exponential(size=shape) - 1.3 * generator.exponential(size=shape),
        -0.3,
        None,
    ),
    "beta(0.5, 0.1) - beta(1, 0.1)": lambda generator, shape: (
        generator.beta(0.5, 0.1, shape) - generator.beta(1, 0.1, shape),
        0.5 / 0.6 - 1 / 1.1,
        UNIT,
    ),
    "equal log-normals": lambda generator, shape: (
        generator.lognormal(size=shape) - generator.lognormal(size=shape),
        0.0,
        None,
    ),
    "equal beta(0.1, 2)": lambda generator, shape: (
        generator.beta(0.1, 2, shape) - generator.beta(0.1, 2, shape),
        0.0,
        UNIT,
    ),
    "right .99 and .96, independent": _paired(0.99, 0.96, nested=False),
    "right .99 and .96, nested": _paired(0.99, 0.96, nested=True),
    "right .97 and .97, independent": _paired(0.97, 0.97, nested=False),
    "right .9 and .5": _paired(0.9, 0.5, nested=False),
    "right .80 and .78, one in five differs": _rarely_apart,
}
