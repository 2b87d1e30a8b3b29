"""Means with their intervals: Student's t over few repeats, the bootstrap over many images."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from efface.draws import seed_of
from efface.report.stats.curve import Curve, Over, areas, measure_of

RESAMPLES = 2000
"""The ends of a 95 % interval then vary by about 2 % of its width from one seed to the next."""
ENOUGH = 50
"""Fewer images get Student's interval: of 20 normal or exponential values the bootstrap's covers 93 and 92 %, Student's
95 and 93 %; of 50 they are within a point or so (measured, 3,000 runs each)."""
_BLOCK = 1 << 20  # numbers drawn at once, 8 MB


class Interval(NamedTuple):
    """A mean with its standard deviation and confidence interval; what `n` samples cannot give is NaN."""

    mean: float
    std: float
    low: float
    high: float
    n: int


class Summary(NamedTuple):
    """A curve's area and each of its points, with intervals, and how those of the area were made."""

    area: Interval
    points: tuple[Interval, ...]
    by: Literal["bootstrap", "t"]


@dataclass(frozen=True)
class Drawn:
    """Several draws of one stochastic method, as one curve.

    curve: mean over the draws, sample by sample.
    between: standard deviation, between draws, of the mean area: what extracting the maps once more would change.
        NaN for one draw.
    draws: how many there are.
    """

    curve: Curve
    between: float
    draws: int


def interval(values: Float[np.ndarray, " samples"], level: float = 0.95) -> Interval:
    """Mean of the values that are there, with Student's t interval of the mean.

    For many samples this is the normal interval. One sample has a mean only.

    level: probability that the interval covers the true mean, in (0, 1).
    """
    from scipy.special import stdtrit

    values = values[~np.isnan(values)].astype(np.float64)
    n = len(values)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, np.nan, 0)
    mean = float(values.mean())
    if n == 1:
        return Interval(mean, np.nan, np.nan, np.nan, 1)
    std = float(values.std(ddof=1))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * std / n**0.5
    return Interval(mean, std, mean - half, mean + half, n)


def bootstrap(
    values: Float[np.ndarray, "samples columns"], level: float = 0.95, resamples: int = RESAMPLES
) -> tuple[Interval, ...]:
    """Mean of each column's values that are there, with the bootstrap interval of the mean.

    Bias-corrected and accelerated, so a skewed column has a skewed interval. All columns are resampled alike, and the
    resamples depend on the number of samples alone: the same values have the same interval in any run and company.

    level: as in `interval`.
    resamples: how many; time and precision grow with it.

    Source: Efron 1987, section 6; the acceleration of a mean is its skewness over 6 sqrt(n).
    """
    means = resampled(values, resamples)
    return tuple(_bca(column, drawn, level) for column, drawn in zip(values.T, means.T, strict=True))


def mean_intervals(
    values: Float[np.ndarray, "samples columns"], sample: Over, level: float = 0.95
) -> tuple[Interval, ...]:
    """An interval for each column's mean: `bootstrap` over at least 50 images, else `interval`.

    level: as in `interval`.
    """
    found = [interval(column, level) for column in values.T]
    many = [i for i, each in enumerate(found) if bootstrapped(sample, each.n)]
    if many:
        for i, each in zip(many, bootstrap(values[:, many], level), strict=True):
            found[i] = each
    return tuple(found)


def summary(curve: Curve, level: float = 0.95) -> Summary:
    """The area and each point of a curve, each with the interval that suits its samples.

    level: as in `interval`.
    """
    return summaries([curve], level)[0]


def summaries(curves: Sequence[Curve], level: float = 0.95) -> tuple[Summary, ...]:
    """The summary of each curve. Much faster than one by one: curves on as many images are resampled together.

    level: as in `interval`.
    """
    tables = [np.column_stack([areas(curve), curve.values.astype(np.float64)]) for curve in curves]
    groups: dict[tuple[Over, int], list[int]] = {}
    for i, curve in enumerate(curves):
        groups.setdefault((curve.sample, len(curve.values)), []).append(i)
    found: dict[int, Summary] = {}
    for (over, _), members in groups.items():
        intervals = iter(mean_intervals(np.hstack([tables[i] for i in members]), over, level))
        for i in members:
            area, *points = itertools.islice(intervals, tables[i].shape[1])
            found[i] = Summary(area, tuple(points), "bootstrap" if bootstrapped(over, area.n) else "t")
    return tuple(found[i] for i in range(len(curves)))


def combine(draws: Sequence[Curve], method: str) -> Drawn:
    """Draws of a stochastic method, each measured alike, as one curve: the mean over draws of each sample.

    A sample is NaN where any draw's is. The interval of the combined curve is over its samples; `between` says what
    the draws add, a standard error of between / sqrt(draws).

    draws: a curve a draw, on the same samples.
    method: the name of the whole.
    """
    if not draws:
        raise ValueError(f"{method}: no draws to combine, expected at least one curve")
    first = draws[0]
    for curve in draws:
        if measure_of(curve) != measure_of(first) or curve.pairs != first.pairs:
            raise ValueError(
                f"{method}: draws {first.method} and {curve.method} were measured on different things or samples; "
                "measure every draw with one metric on one set of samples"
            )
        if curve.values.shape != first.values.shape:
            raise ValueError(
                f"{method}: draw {curve.method} has {len(curve.values)} samples, {first.method} has "
                f"{len(first.values)}; measure every draw on the same ones"
            )
    values = np.mean([curve.values.astype(np.float64) for curve in draws], axis=0)
    each = np.stack([areas(curve) for curve in draws])
    whole = each[:, ~np.isnan(each).any(axis=0)]
    between = float(whole.mean(axis=1).std(ddof=1)) if len(draws) > 1 and whole.size else np.nan
    return Drawn(replace(first, method=method, values=values, draw_of=""), between, len(draws))


def bootstrapped(sample: Over, n: int) -> bool:
    """Whether a mean of so many samples gets the bootstrap's interval."""
    return sample == "images" and n >= ENOUGH


def resampled(
    values: Float[np.ndarray, "samples columns"], resamples: int = RESAMPLES
) -> Float[np.ndarray, "resamples columns"]:
    """Means of the columns when their rows are drawn with replacement; NaN where a draw has no value of a column."""
    samples, columns = values.shape
    found = np.empty((resamples, columns))
    generator = np.random.default_rng(seed_of("bootstrap"))
    there = ~np.isnan(values)
    centre = np.where(there, values, 0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    apart, weights = np.where(there, values - centre, 0), there.astype(np.float64)
    size = max(1, _BLOCK // max(1, samples))
    for first in range(0, resamples, size):
        block = found[first : first + size]
        drawn = generator.integers(0, samples, (len(block), samples))
        drawn += np.arange(len(block))[:, None] * samples
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)
        total = np.full_like(block, samples) if there.all() else counts @ weights
        np.divide(counts @ apart, total, out=block, where=total > 0)
        block[total == 0] = np.nan
    return found + centre


def _bca(values: np.ndarray, means: np.ndarray, level: float) -> Interval:
    """The bootstrap interval of one column, from the means of its resamples."""
    from scipy.special import ndtr, ndtri

    values, means = values[~np.isnan(values)], means[~np.isnan(means)]
    n = len(values)
    if n < 2 or np.ptp(values) == 0:
        return interval(values, level)
    mean = values.mean()
    apart = values - mean
    acceleration = (apart**3).sum() / (6 * (apart**2).sum() ** 1.5)
    below = (np.mean(means < mean) + np.mean(means <= mean)) / 2
    edge = 1 / (2 * len(means))  # a bias beyond what so many resamples can show
    bias = ndtri(np.clip(below, edge, 1 - edge))
    ends = bias + ndtri([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(means, ndtr(bias + ends / (1 - acceleration * ends)))
    return Interval(float(mean), float(values.std(ddof=1)), float(low), float(high), n)
