"""Scores of trained networks: their variance over test images and over trainings, which are crossed.

Every training is tested on the same images, so the scores of a method are a table of trainings x images. The mean may
be off because other trainings would give other networks, and because other test images would be other tasks. An
interval over the trainings alone knows only the first, and more trainings would turn the second into "significance".
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from efface.report.stats.interval import Interval
from efface.report.stats.proportions import wilson
from efface.report.stats.skewed import Estimate

FEWEST = 3
"""Smallest number of trainings with an interval and a test."""
FEWEST_POOLED = 3
"""Smallest number of methods that learn a common spread from one another."""


_SAME = 2.0**-40  # relative to the largest mean: rounding errors are no spread


class Spread(NamedTuple):
    """Variance of a method's mean score from one training to the next.

    variance: the variance. freedom: its degrees of freedom.
    """

    variance: float
    freedom: float


class Trained(NamedTuple):
    """Scores of the trainings of one method.

    means: mean score of each training.
    images: score of each test image in each training; None if only the means are known.
    """

    means: Float[np.ndarray, " trainings"]
    images: Float[np.ndarray, "trainings images"] | None


def spreads(means: Float[np.ndarray, "methods trainings"], *, paired: bool) -> tuple[Spread, ...]:
    """Return the spread of each method between trainings, with the help of the other methods' spreads.

    Few trainings tell little about a variance. The variances of the methods are therefore moved toward their common
    value, the more the less they differ (Smyth 2004). With fewer than three methods, each keeps its own.

    means: mean score of each training, without NaN; column r is training r, with the same seed for all methods.
    paired: True for differences: what all methods share in a training is then taken out.

    Source: Smyth 2004, Linear models and empirical Bayes methods (SAGMB 3), sections 3 and 6.2.
    """
    methods, trainings = means.shape
    apart = means - means.mean(axis=1, keepdims=True)
    freedom = trainings - 1.0
    pooled = methods >= FEWEST_POOLED
    if paired and pooled:
        apart = apart - apart.mean(axis=0)
        freedom *= (methods - 1) / methods
    variances = (apart**2).sum(axis=1) / freedom
    if not pooled or not (variances > 0).any():
        return tuple(Spread(float(variance), freedom) for variance in variances)
    more, common = common_variance(variances, freedom)
    moved = np.full(methods, common) if np.isinf(more) else (more * common + freedom * variances) / (more + freedom)
    return tuple(Spread(float(variance), min(more + freedom, freedom * methods)) for variance in moved)


def mean_of_trainings(
    one: Trained, spread: Spread, level: float = 0.95, bounds: tuple[float, float] | None = None
) -> Estimate:
    """Return the mean over trainings and test images, with an interval that holds for other trainings and images.

    bounds: smallest and largest possible score. Near them the interval is Wilson's, with as many images as the variance
        is worth.
    """
    mean, n = float(one.means.mean()), len(one.means)
    std = float(one.means.std(ddof=1)) if n > 1 else np.nan
    if n < FEWEST:
        return Estimate(Interval(mean, std, np.nan, np.nan, n), np.nan, "none")
    variance, freedom = _variance(spread, n, one.images, bounds)
    quantile = _quantile(freedom, level)
    if bounds is None or one.images is None:
        half = quantile * variance**0.5
        return Estimate(Interval(mean, std, mean - half, mean + half, n), np.nan, "crossed")
    scale = bounds[1] - bounds[0]
    share = (mean - bounds[0]) / scale
    worth = share * (1 - share) * scale**2 / variance if variance > 0 else np.inf
    low, high = wilson(share, max(min(worth, one.images.size), 1.0), quantile=quantile)
    return Estimate(
        Interval(mean, std, float(bounds[0] + scale * low), float(bounds[0] + scale * high), n), np.nan, "crossed"
    )


def difference_of_trainings(
    one: Trained, other: Trained, spread: tuple[Spread, Spread], level: float = 0.95, scale: float | None = None
) -> Estimate:
    """Return the mean difference of two methods, paired by training and test image, with its interval and test.

    spread: spread of each method, of `spreads(..., paired=True)`.
    scale: width of the range of possible scores; None if unknown.
    """
    apart = one.means - other.means
    mean, n = float(apart.mean()), len(apart)
    std = float(apart.std(ddof=1)) if n > 1 else np.nan
    images = None if one.images is None or other.images is None else one.images - other.images
    if n < FEWEST:
        return Estimate(Interval(mean, std, np.nan, np.nan, n), np.nan, "none")
    both = Spread(spread[0].variance + spread[1].variance, min(component.freedom for component in spread))
    variance, freedom = _variance(both, n, images, None if scale is None else (0.0, scale))
    if both.freedom < n:  # the own spread of few trainings may be far too small, and then borrows the images' freedom
        freedom = min(freedom, both.freedom)
    size = float(np.abs([one.means, other.means]).max())
    if variance**0.5 <= _SAME * size:
        return Estimate(Interval(mean, std, np.nan, np.nan, n), 1.0 if abs(mean) <= _SAME * size else np.nan, "few")
    from scipy.special import stdtr

    half = _quantile(freedom, level) * variance**0.5
    p = float(2 * stdtr(freedom, -abs(mean) / variance**0.5))
    return Estimate(Interval(mean, std, mean - half, mean + half, n), p, "crossed")


def _variance(
    spread: Spread, n: int, images: Float[np.ndarray, "trainings images"] | None, bounds: tuple[float, float] | None
) -> tuple[float, float]:
    """Return the variance of a mean over trainings and images, and its degrees of freedom (Satterthwaite).

    Formula: spread / trainings + variance of the images' means / images - residual variance / (trainings x images).
    The residual is in both of the first terms. One image more that differs counts, so that the variance is not 0 if all
    images are equal.

    Source: Owen 2007, The pigeonhole bootstrap (AOAS 1), section 3, for the two terms of a crossed table.
    """
    trainings = spread.variance / n
    if images is None:
        return trainings, spread.freedom
    known = ~np.isnan(images).any(axis=0)
    whole = np.asarray(images if known.all() else images[:, known], dtype=np.float64)
    count = whole.shape[1]
    if count < 2:
        return trainings, spread.freedom
    by_image = whole.sum(axis=0) / len(whole)
    apart = by_image - by_image.sum() / count
    one_more = 0.0 if bounds is None else ((bounds[1] - bounds[0]) / count) ** 2
    between = float(apart @ apart) / (count - 1) / count + one_more
    residual = whole - by_image
    residual -= residual.sum(axis=1, keepdims=True) / count
    twice = float(np.vdot(residual, residual)) / ((n - 1) * (count - 1)) / (n * count)
    variance = max(trainings + between - twice, max(trainings, between) / 2)
    if variance <= 0:
        return 0.0, spread.freedom
    parts = trainings**2 / spread.freedom + between**2 / (count - 1) + twice**2 / ((n - 1) * (count - 1))
    return variance, variance**2 / parts if parts > 0 else spread.freedom


def common_variance(variances: np.ndarray, freedom: float) -> tuple[float, float]:
    """Return the degrees of freedom and the value of the common variance of several columns.

    freedom: degrees of freedom of each of the variances. All must be above 0, or small beside their mean.

    Source: Smyth 2004, section 6.2.
    """
    from scipy.special import digamma, polygamma

    logs = np.log(np.maximum(variances, 1e-12 * variances.mean()))
    apart = logs - digamma(freedom / 2) + np.log(freedom / 2)
    excess = float(apart.var(ddof=1) - polygamma(1, freedom / 2))
    if excess <= 0:
        return np.inf, float(variances.mean())
    more = 2 * _trigamma_inverse(excess)
    return more, float(np.exp(apart.mean() + digamma(more / 2) - np.log(more / 2)))


def _trigamma_inverse(value: float) -> float:
    """Return x with trigamma(x) = value, by Newton's steps on 1 / trigamma."""
    from scipy.special import polygamma

    x = 0.5 + 1 / value
    for _ in range(50):
        here = float(polygamma(1, x))
        step = here * (1 - here / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-10 * x:
            break
    return x


def _quantile(freedom: float, level: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))
