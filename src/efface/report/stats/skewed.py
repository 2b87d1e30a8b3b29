"""Interval and test of a mean over images that hold for skewed scores, and where only a few images differ."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from efface.report.stats.interval import Interval
from efface.report.stats.proportions import mcnemar_z, tango, wilson

By = Literal["student", "hall", "wilson", "tango", "crossed", "betting", "spent", "few", "skewed", "none"]
"""How an interval was made. `few` and `skewed`: why there is no verdict; `none`: too few samples."""

FEW = 10
"""Smallest number of images that must differ from the median, so that their spread says how far the mean may be off."""
ENOUGH = 50
"""Smallest number of images at which a skewed score without a known range gets a verdict."""
_LEAST = 10  # images for the correction by their skewness; fewer get Student's interval
_SAME = 2.0**-40  # relative to the largest value: rounding errors are no spread


class Estimate(NamedTuple):
    """A mean with its interval and its test against 0.

    interval: mean, standard deviation, interval and number of samples.
    p: two-sided p value of the hypothesis that the true mean is 0; NaN if there is no test.
    by: how both were made, or why there is no test.
    """

    interval: Interval
    p: float
    by: By


class Moments(NamedTuple):
    """Moments of each column, over its values that are not NaN.

    n: number of values. mean, std: of the values (n - 1). skewness: third standardised moment; 0 without spread.
    """

    n: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    skewness: np.ndarray


def moments(values: Float[np.ndarray, "samples columns"]) -> Moments:
    """Return the moments of each column; NaN where there are too few values."""
    known = ~np.isnan(values)
    n = known.sum(axis=0)
    some = np.maximum(n, 1)
    zeroed = np.where(known, values, 0.0)
    mean = zeroed.sum(axis=0) / some
    apart = np.where(known, values - mean, 0.0)
    square = apart * apart
    second, third = square.sum(axis=0), (square * apart).sum(axis=0)
    size = np.abs(zeroed).max(axis=0, initial=0)
    second = np.where(np.sqrt(second / some) <= _SAME * size, 0.0, second)
    skewness = np.divide(third / some, (second / some) ** 1.5, out=np.zeros(len(n)), where=second > 0)
    std = np.where(n > 1, np.sqrt(second / np.maximum(n - 1, 1)), np.nan)
    return Moments(n, np.where(n > 0, mean, np.nan), std, skewness)


def image_estimates(
    values: Float[np.ndarray, "images columns"],
    level: float = 0.95,
    *,
    bounds: tuple[float, float] | None = None,
    difference: bool = False,
) -> tuple[Estimate, ...]:
    """Return the mean of each column with its interval and test, over the images that have a value.

    * Of zeros and ones (a classification is right or wrong), and if fewer than 10 images differ from the median of a
      score with a known range: Wilson's interval. For paired differences it is Tango's. Both also hold if all values
      are equal.
    * Other columns, from 10 images on: Student's t, corrected for the skewness by Hall's transformation. In simulations
      it covers like the bootstrap-t, and it draws nothing (docs/reliability.md).
    * Such differences: Student's t with and without this correction. The interval has all that either of the two has,
      and p is the larger one. The correction holds for skewed differences, the plain t for heavy tails on both sides.
    * Under 10 images: Student's t.

    There is no test (p is NaN) if fewer than 10 images differ and the range is unknown ("few"), and for a skewed column
    of fewer than 50 images with an unknown range ("skewed").

    level: probability that an interval covers the true mean, in (0, 1).
    bounds: smallest and largest possible score; None if unknown.
    difference: True if the columns are differences of two such scores.

    Source: Hall 1992, On the removal of skewness by transformation (JRSS B 54, 221), the third transformation.
    """
    from scipy.special import ndtr

    described = moments(values)
    low, high, p = _by_skewness(described, level, difference=difference)
    by = np.where(described.n >= _LEAST, "hall", "student").astype(object)
    differing = _differing(values)
    few = differing < np.minimum(FEW, described.n / 2)
    if bounds is None:
        skewed = (described.n < ENOUGH) & (np.abs(described.skewness) > np.sqrt(described.n) / 3)
        p = np.where(skewed | few, np.nan, p)
        by[skewed] = "skewed"
        by[few] = "few"
        low, high = np.where(few, np.nan, low), np.where(few, np.nan, high)
    else:
        scale = bounds[1] - bounds[0]
        scaled = (values if difference else values - bounds[0]) / scale
        steps = (np.isin(scaled, (-1.0, 0.0, 1.0)) | np.isnan(values)).all(axis=0)
        chosen = (few | steps) & (described.n > 0)
        part, n = np.where(np.isnan(scaled), 0, scaled)[:, chosen], described.n[chosen]
        if difference:
            up, down = np.maximum(part, 0).sum(axis=0), np.maximum(-part, 0).sum(axis=0)
            ends = tango(up, down, n, level)
            p[chosen], by[chosen] = 2 * ndtr(-np.abs(mcnemar_z(up, down))), "tango"
            low[chosen], high[chosen] = scale * ends[0], scale * ends[1]
        else:
            ends = wilson(part.sum(axis=0) / n, n, level)
            p[chosen], by[chosen] = np.nan, "wilson"
            low[chosen], high[chosen] = bounds[0] + scale * ends[0], bounds[0] + scale * ends[1]
    alone = described.n < 2
    by[alone] = "none"
    p = np.where(alone, np.nan, p)
    low, high = np.where(alone, np.nan, low), np.where(alone, np.nan, high)
    return tuple(
        Estimate(Interval(float(m), float(s), float(a), float(b), int(n)), float(q), kind)
        for m, s, a, b, n, q, kind in zip(described.mean, described.std, low, high, described.n, p, by, strict=True)
    )


def statistic(n: np.ndarray, mean: np.ndarray, std: np.ndarray, skewness: np.ndarray) -> np.ndarray:
    """Return the t statistic of a mean difference against 0, corrected for the skewness or not: the smaller one.

    Differences with heavy tails on both sides have a skewness by chance, of which the correction makes a significance.
    """
    plain, corrected = _statistics(n, mean, std, skewness)
    return np.where(np.isfinite(plain) & (np.abs(plain) < np.abs(corrected)), plain, corrected)


def _statistics(
    n: np.ndarray, mean: np.ndarray, std: np.ndarray, skewness: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return Student's t of the mean against 0, and the same after Hall's third transformation."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = mean / (std / np.sqrt(n))
    bend = np.where(n >= _LEAST, skewness / np.sqrt(n), 0.0)
    finite = np.isfinite(t)
    some = np.where(finite, t, 0.0)
    bent = bend * some
    return t, np.where(finite, some * (1 + bent / 3 + bent * bent / 27) + bend / 6, t)


def _by_skewness(described: Moments, level: float, *, difference: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both ends of the interval of each mean, and its p value against 0."""
    from scipy.special import stdtr, stdtrit

    freedom = np.maximum(described.n - 1, 1)
    error = described.std / np.sqrt(np.maximum(described.n, 1))
    bend = np.where(described.n >= _LEAST, described.skewness / np.sqrt(np.maximum(described.n, 1)), 0.0)
    quantile = stdtrit(freedom, (1 + level) / 2)

    def back(y: np.ndarray) -> np.ndarray:
        small = np.abs(bend) < 1e-9
        bent = 3 * (np.cbrt(1 + bend * (y - bend / 6)) - 1) / np.where(small, 1.0, bend)
        return np.where(small, y, bent)

    ends = [back(quantile), back(-quantile)]
    if difference:
        ends = [np.maximum(ends[0], quantile), np.minimum(ends[1], -quantile)]
    low, high = (described.mean - error * end for end in ends)
    of_mean = (np.maximum(described.n, 1), described.mean, described.std, described.skewness)
    y = statistic(*of_mean) if difference else _statistics(*of_mean)[1]
    p = np.where(described.std > 0, 2 * stdtr(freedom, -np.abs(y)), np.where(described.mean == 0, 1.0, np.nan))
    return low, high, p


def _differing(values: np.ndarray) -> np.ndarray:
    """Return for each column how many values differ from its median."""
    with np.errstate(all="ignore"):
        inner = np.sort(values, axis=0)  # NaN last
    n = (~np.isnan(values)).sum(axis=0)
    middle = inner[np.maximum((n - 1) // 2, 0), np.arange(values.shape[1])] if len(values) else np.zeros(len(n))
    step = _SAME * np.nanmax(np.abs(np.where(np.isnan(values), 0, values)), axis=0, initial=0)
    return np.asarray(((np.abs(values - middle) > step) & ~np.isnan(values)).sum(axis=0))
