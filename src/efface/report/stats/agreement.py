"""Agreement of two metrics, or of the images of one metric, in their rankings of the methods."""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from efface.base.draws import seed_of
from efface.report.stats.curve import Curve, table
from efface.report.stats.krippendorff import alpha_of_counts, krippendorff_alpha
from efface.report.stats.proportions import wilson

FEWEST = 5
"""Smallest number of methods with an interval of tau: fewer have too few possible orders."""
_SAME = 2.0**-40  # relative to the largest mean: rounding errors must not rank equal values
_ALL = 7  # methods up to which all orders are tried
_MANY = 33  # methods from which the normal distribution of tau is exact enough
_SHUFFLES = 10_000
_RARE = 10
"""Images that differ from the commonest ranking, below which their number is too small for the jackknife."""


class Agreement(NamedTuple):
    """An agreement with its interval and its test of chance; NaN if there are too few values.

    value: 1 if all rankings of the methods are equal.
    low: lower end of the interval.
    high: upper end of the interval.
    n: number of methods that were ranked.
    p: two-sided p value of the hypothesis that the rankings are unrelated.
    """

    value: float
    low: float
    high: float
    n: int
    p: float


NO_AGREEMENT = Agreement(np.nan, np.nan, np.nan, 0, np.nan)


def metric_agreement(one: Sequence[Curve], other: Sequence[Curve], level: float = 0.95) -> Agreement:
    """Kendall's tau-b of two metrics' rankings of the methods that both have, by mean area, most truthful first.

    The value is -1 if one ranking is the reverse of the other, and near 0 if the rankings are unrelated. The
    `direction` of the curves decides which values are truthful ("none" counts as higher). MoRF and LeRF therefore agree
    if tau is 1. Only samples that all methods of a metric have are used.

    Interval and test are over methods: the methods count as a sample of all methods of their kind, each measured on as
    many images as here. The test compares tau with that of all other orders of the methods. The interval holds the
    values of tau that differ from the measured one by less than chance would; it assumes that the two metrics' values
    depend on one another like normal variables after any monotone change of either. With fewer than five methods there
    is no interval.

    one: a curve for each method, all of one metric and score.
    other: the same for the other metric.
    level: probability that the interval covers the true value, in (0, 1).

    Source: Kendall 1945 (tau-b); Esscher 1924 (variance of tau of normal variables).
    """
    return ranking_agreement(ranking(one), ranking(other), level)


class Ranking(NamedTuple):
    """What a metric says of the methods.

    name: metric and score. methods: names of the methods. areas: the area of each method in each sample. sign: -1 if
    lower is better.
    """

    name: str
    methods: tuple[str, ...]
    areas: Float[np.ndarray, "samples methods"]
    sign: int


def ranking(curves: Sequence[Curve]) -> Ranking:
    """Return the ranking of the methods by the curves of one metric and score."""
    if not curves:
        return Ranking(_name(curves), (), np.empty((0, 0)), 1)
    methods = tuple(curve.method for curve in curves)
    return Ranking(_name(curves), methods, table(curves)[1], -1 if curves[0].direction == "lower" else 1)


def ranking_agreement(one: Ranking, other: Ranking, level: float = 0.95) -> Agreement:
    """Return the agreement of two rankings, see `metric_agreement`."""
    names = [name for name in one.methods if name in set(other.methods)]
    if len(names) < 2:
        raise ValueError(
            f"{one.name} and {other.name} have these methods in common: {', '.join(names) or 'none'}; a ranking needs "
            "at least two"
        )
    sides = (one, other)
    tables = [side.areas[:, [side.methods.index(name) for name in names]] for side in sides]
    ready = np.all([~np.isnan(values).all(axis=0) for values in tables], axis=0)
    tables = [_whole(values[:, ready]) for values in tables]
    n = int(ready.sum())
    if n < 2 or any(np.isnan(values).all() for values in tables):
        return NO_AGREEMENT._replace(n=n)
    means = [side.sign * np.nanmean(values, axis=0) for side, values in zip(sides, tables, strict=True)]
    tau = float(tau_b(means[0][None], means[1][None])[0])
    if np.isnan(tau):
        return NO_AGREEMENT._replace(n=n)
    return Agreement(tau, *_ends(tau, n, level), n, chance_p(means[0], means[1]))


def image_agreement(curves: Sequence[Curve], level: float = 0.95) -> Agreement:
    """Krippendorff's alpha, ordinal, over the images of one metric: each image ranks the methods by their areas.

    The value is 1 if all images give the same ranking, and 0 if the ranks are as in shuffled rankings. A method without
    a value on an image is a missing value. The test is Friedman's, over the images that all methods have.

    The interval is the jackknife's over images, for the inverse hyperbolic tangent of alpha. If fewer than ten images
    differ from the commonest ranking, it also holds what Wilson's interval of their share gives, with the same mean
    disagreement of an image. If no image differs, this disagreement is that of two neighbours exchanged. If no value is
    missing, the interval then holds 0 if and only if the test does not reject unrelated rankings: for unrelated
    rankings, the jackknife counts the spread of pairs of images twice.

    curves: a curve for each method, all of one metric and score, over images.
    level: probability that the interval covers the true value, in (0, 1).

    Source: Krippendorff 2011; Tukey 1958 (jackknife); Efron & Stein 1981 (where it is too wide); Friedman 1937; Wilson
    1927.
    """
    if len(curves) < 2:
        raise ValueError(f"{_name(curves)}: {len(curves)} curves; a ranking needs at least two methods")
    if curves[0].sample != "images":
        raise ValueError(
            f"{_name(curves)}: its samples are {curves[0].sample}; image_agreement needs images as samples"
        )
    _, values = table(curves)
    step = _SAME * np.max(np.abs(values), initial=0, where=~np.isnan(values))
    ranks = _ranks(np.round(values / step) if step else values)
    n = int((~np.isnan(ranks)).any(axis=0).sum())
    alpha = krippendorff_alpha(ranks)
    places = np.arange(1, len(curves) + 0.5, 0.5)
    shares = ranks[:, :, None] == places
    counts = shares.sum(axis=0).astype(np.float64)
    without = np.array([alpha_of_counts(counts - one, places, "ordinal") for one in shares.astype(np.float64)])
    without = without[~np.isnan(without)]
    low, high = _with_rare(*_jackknife(alpha, without, level), alpha, ranks, level)
    p = _friedman_p(ranks)
    if not np.isnan(ranks).any():
        low, high = (max(low, np.nextafter(0, 1)), high) if p < 1 - level else (min(low, 0.0), max(high, 0.0))
    return Agreement(alpha, low, high, n, p)


def _jackknife(alpha: float, without: np.ndarray, level: float) -> tuple[float, float]:
    """Return both ends of the interval of alpha. without: alpha without each image."""
    from scipy.special import stdtrit

    n = len(without)
    if n < 2:
        return np.nan, np.nan
    inside = bool((np.abs(without) < 1).all() and abs(alpha) < 1)
    moved, value = (np.arctanh(without), np.arctanh(alpha)) if inside else (without, alpha)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * ((n - 1) ** 2 / n * moved.var(ddof=1)) ** 0.5
    low, high = (np.tanh(value - half), np.tanh(value + half)) if inside else (value - half, value + half)
    return max(-1.0, float(low)), min(1.0, float(high))


def _with_rare(low: float, high: float, alpha: float, ranks: np.ndarray, level: float) -> tuple[float, float]:
    """Return the interval of alpha, with what other shares of rare rankings would give."""
    images, methods = ranks.shape
    _, counts = np.unique(np.nan_to_num(ranks, nan=-1.0), axis=0, return_counts=True)
    rare = images - int(counts.max(initial=0))
    if np.isnan(low) or rare >= _RARE:
        return low, high
    least, most = (float(end) for end in wilson(rare / images, images, level))
    of_one = (1 - alpha) * images / rare if rare else 24 / (methods * (methods**2 - 1))
    return max(-1.0, min(low, 1 - most * of_one)), min(1.0, max(high, 1 - least * of_one))


def tau_b(
    one: Float[np.ndarray, "rankings methods"], other: Float[np.ndarray, "rankings methods"]
) -> Float[np.ndarray, " rankings"]:
    """Kendall's tau-b of each row of `one` with the same row of `other`; NaN if all values of a row are equal."""
    left, right = np.triu_indices(one.shape[1], 1)
    steps = []
    for values in (one, other):
        apart = values[:, left] - values[:, right]
        steps.append(np.sign(apart) * (np.abs(apart) > _SAME * np.abs(values).max(axis=1, keepdims=True)))
    untied = np.sqrt((steps[0] ** 2).sum(axis=1) * (steps[1] ** 2).sum(axis=1))
    return np.divide((steps[0] * steps[1]).sum(axis=1), untied, out=np.full(len(one), np.nan), where=untied > 0)


def chance_p(one: Float[np.ndarray, " methods"], other: Float[np.ndarray, " methods"]) -> float:
    """Return the two-sided p value of tau-b under all orders of the methods; of 10,000 orders for many methods."""
    n = len(one)
    own = abs(float(tau_b(one[None], other[None])[0]))
    ranks = [
        np.unique(np.round(values / (_SAME * np.abs(values).max() or 1)), return_inverse=True)[1]
        for values in (one, other)
    ]
    if n > _MANY:
        return _asymptotic_p(*ranks)
    if n > _ALL and all(len(np.unique(rank)) == n for rank in ranks):
        from scipy.stats import kendalltau

        return float(kendalltau(*ranks, method="exact").pvalue)
    orders = _orders(n)
    drawn = np.abs(
        tau_b(np.broadcast_to(ranks[0].astype(np.float64), orders.shape), ranks[1][orders].astype(np.float64))
    )
    return float(np.mean(drawn >= own - 1e-9))


def _asymptotic_p(one: np.ndarray, other: np.ndarray) -> float:
    """Return the two-sided p value of tau-b by the normal distribution. To import it from scipy.stats takes a second.

    Source: Kendall 1970, Rank Correlation Methods, section 4.3.
    """
    from scipy.special import ndtr

    n = len(one)
    left, right = np.triu_indices(n, 1)
    apart = int((np.sign(one[left] - one[right]) * np.sign(other[left] - other[right])).sum())
    alike = [np.bincount(values) for values in (one, other)]  # numbers of equal values
    twos, threes, spread = (
        [int((counts * part(counts)).sum()) for counts in alike]
        for part in (
            lambda t: t - 1,
            lambda t: (t - 1) * (t - 2),
            lambda t: (t - 1) * (2 * t + 5),
        )
    )
    pairs = n * (n - 1)
    variance = (pairs * (2 * n + 5) - sum(spread)) / 18 + twos[0] * twos[1] / (2 * pairs)
    variance += threes[0] * threes[1] / (9 * pairs * (n - 2))
    return float(2 * ndtr(-abs(apart) / variance**0.5)) if variance > 0 else np.nan


def _ranks(values: Float[np.ndarray, "samples methods"]) -> Float[np.ndarray, "samples methods"]:
    """Return the rank of each value in its sample, from 1; equal values share their mean rank, and NaN has none."""
    one, other = values[:, :, None], values[:, None, :]
    ranks = (other < one).sum(axis=2) + ((other == one).sum(axis=2) + 1) / 2
    return np.where(np.isnan(values), np.nan, ranks)


@functools.lru_cache(maxsize=8)
def _orders(n: int) -> np.ndarray:
    """Return all orders of n methods, or many random ones with the given order among them."""
    if n <= _ALL:
        return np.array(list(itertools.permutations(range(n))), dtype=np.intp)
    generator = np.random.default_rng(seed_of("orders"))
    drawn = generator.permuted(np.tile(np.arange(n), (_SHUFFLES, 1)), axis=1)
    return np.concatenate([np.arange(n)[None], drawn])


def _ends(tau: float, n: int, level: float) -> tuple[float, float]:
    """Return the smallest and the largest true tau that the measured one is compatible with."""
    from scipy.special import ndtri

    if n < FEWEST:
        return np.nan, np.nan
    true = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 4001))  # dense near -1 and 1
    correlation = np.sin(np.pi * true / 2)
    third = 1 / 9 - 4 / np.pi**2 * np.arcsin(correlation / 2) ** 2
    variance = 2 / (n * (n - 1)) * (1 - true**2 + 2 * (n - 2) * third)
    inside = true[np.abs(tau - true) <= float(ndtri((1 + level) / 2)) * np.sqrt(np.maximum(variance, 0))]
    return float(min(inside.min(initial=tau), tau)), float(max(inside.max(initial=tau), tau))


def _friedman_p(ranks: np.ndarray) -> float:
    """Return the p value of Friedman's test that all methods have the same mean rank."""
    from scipy.special import chdtrc

    whole = ranks[~np.isnan(ranks).any(axis=1)]
    images, methods = whole.shape
    if images < 2 or methods < 2:
        return np.nan
    spread = float(whole.var(axis=1, ddof=1).sum())  # ties make it smaller
    if spread <= 0:
        return 1.0
    between = float(((whole.sum(axis=0) - images * (methods + 1) / 2) ** 2).sum())
    return float(chdtrc(methods - 1, between / spread * 1.0))


def _whole(values: np.ndarray) -> np.ndarray:
    """Return the values with NaN in each sample that a method lacks."""
    return np.where(np.isnan(values).any(axis=1, keepdims=True), np.nan, values)


def _name(curves: Sequence[Curve]) -> str:
    return f"{curves[0].metric}/{curves[0].score}" if curves else "an empty list of curves"
