"""Comparisons of two methods on one metric: paired tests, effect sizes, and corrections for all pairs."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from efface.report.stats.curve import Better, Curve, Over, areas, lacking, shared, table
from efface.report.stats.means import Interval, interval, mean_intervals

FEWEST = 6
"""Smallest number of pairs for Wilcoxon's test. With 5 pairs, its p is at least 2 / 2^5 = 0.0625."""
_EXACT = 13  # largest number of non-zero differences for the exact test, which tries all 2^13 signs
_SAME = 2.0**-40  # relative to the largest area: rounding errors must not rank equal values


@dataclass(frozen=True)
class Comparison:
    """Comparison of two methods on one metric and score, over the samples that both have.

    If the metric has no direction, higher counts as better.

    metric: name of the metric.
    score: name of the score.
    first: name of the first method.
    second: name of the second method.
    difference: mean area of the first method minus that of the second, with its interval; n is the number of pairs.
    test: "wilcoxon" over images, "t" over repeats or fewer than 6 pairs, "none" if no test is possible.
    p: two-sided p value; NaN for "none".
    p_holm: p value corrected for all pairs that were compared together.
    rank_biserial: -1 to 1, positive if the first method is better: ranks of the differences in its favour minus ranks
        of those against it, divided by all ranks. A tied pair counts only in the divisor.
    common_language: 0 to 1, share of the samples on which the first method is better, with ties counted half; 0.5 means
        no effect.
    says: reason for a test other than Wilcoxon's; "" for Wilcoxon's test.
    """

    metric: str
    score: str
    first: str
    second: str
    difference: Interval
    test: Literal["wilcoxon", "t", "none"]
    p: float
    p_holm: float
    rank_biserial: float
    common_language: float
    says: str


def difference(curve: Curve, other: Curve, level: float = 0.95) -> Interval:
    """Student's interval of the mean area difference (curve minus other), over the samples that both have by `pairs`.

    level: as in `interval`.
    """
    ours, theirs = (curve.metric, curve.score, curve.at), (other.metric, other.score, other.at)
    if ours != theirs:
        raise ValueError(f"curves {ours} and {theirs} measure different things; compare curves of one metric and score")
    _, mine, its = np.intersect1d(curve.pairs, other.pairs, return_indices=True)
    one, two = shared(curve, other)
    return interval(areas(one)[mine] - areas(two)[its], level)


def compare_methods(curves: Sequence[Curve], level: float = 0.95) -> tuple[Comparison, ...]:
    """Compare every two methods of one metric and score, paired by sample, with Holm's correction over all these pairs.

    If one of two methods lacks points that the other has, the areas are over the points that both have.

    The intervals are those of `mean_intervals` over the differences. Images have Wilcoxon's signed-rank test of the
    areas. Zeros are ranked and then left out (Pratt 1959), and the test is exact up to 13 non-zero differences. Repeats
    and fewer than 6 pairs have the paired t test.

    level: probability that an interval covers the true mean, as in `interval`.

    Source: Demsar 2006, sections 3.1 and 3.2; Kerby 2014 (rank-biserial); Vargha & Delaney 2000, section 3
    (common language, ties counted half).
    """
    if len(curves) < 2:
        return ()
    for one, two in itertools.combinations(curves, 2):
        if one.pairs and two.pairs and not set(one.pairs) & set(two.pairs):
            raise ValueError(
                f"{one.metric}/{one.score}: {one.method} and {two.method} have no sample in common; measure both on "
                "the same images or seeds"
            )
    rows, found = table(curves)
    pairs = list(itertools.combinations(range(len(curves)), 2))
    apart = np.stack([_apart(curves[i], curves[j], rows, found[:, [i, j]]) for i, j in pairs], axis=1)
    intervals = mean_intervals(apart, curves[0].sample, level)
    step = _SAME * np.max(np.abs(found), initial=0, where=~np.isnan(found))
    apart = np.where(np.abs(apart) <= step, 0, np.round(apart / step) * step) if step else apart
    tested = [
        _compared(curves[i], curves[j], column, each)
        for (i, j), column, each in zip(pairs, apart.T, intervals, strict=True)
    ]
    corrected = holm(np.array([each.p for each in tested]))
    return tuple(replace(each, p_holm=float(p)) for each, p in zip(tested, corrected, strict=True))


def holm(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Return corrected p values. Rejections below alpha contain an error with probability at most alpha.

    NaN stays NaN and does not count as a test. Source: Holm 1979.
    """
    found = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    found[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return found


def _apart(one: Curve, two: Curve, rows: tuple[int, ...], whole: np.ndarray) -> np.ndarray:
    """Return the differences of the two curves' areas on these rows.

    whole: areas of both curves, used if neither lacks a point.
    """
    sides = shared(one, two)
    if lacking(one) or lacking(two):
        whole = np.full((len(rows), 2), np.nan)
        for column, curve in enumerate(sides):
            whole[np.searchsorted(rows, curve.pairs), column] = areas(curve)
    return np.asarray(whole[:, 0] - whole[:, 1])


def _compared(one: Curve, two: Curve, apart: np.ndarray, found: Interval) -> Comparison:
    """Compare the two methods by their differences, without the correction."""
    apart = apart[~np.isnan(apart)]
    test, p, says = _tested(apart, one.sample)
    rank_biserial, common_language = _effect(apart, one.direction)
    names = (one.metric, one.score, one.method, two.method)
    return Comparison(*names, found, test, p, np.nan, rank_biserial, common_language, says)


def _tested(apart: np.ndarray, sample: Over) -> tuple[Literal["wilcoxon", "t", "none"], float, str]:
    from scipy.special import stdtr

    n = len(apart)
    if n < 2:
        return "none", np.nan, f"{n} pairs: nothing to test, at least 2 are needed."
    few = n < FEWEST
    if sample == "images" and not few:
        return "wilcoxon", wilcoxon_p(apart), ""
    says = (
        f"{n} pairs: the t test, as Wilcoxon's could give no p below {2 / 2**n:.4g}." if few else "Repeats: the t test."
    )
    if not apart.any():
        return "t", 1.0, says
    if np.ptp(apart) == 0:
        return "none", np.nan, f"All {n} differences are equal: no spread to test against."
    t = apart.mean() / (apart.std(ddof=1) / n**0.5)
    return "t", float(2 * stdtr(n - 1, -abs(t))), says


def wilcoxon_p(apart: np.ndarray) -> float:
    """Two-sided p value of the signed-rank test, with Pratt's treatment of zeros."""
    from scipy import stats

    moved = apart != 0
    if not moved.any():
        return 1.0
    if (count := int(moved.sum())) <= _EXACT:
        ranks = stats.rankdata(np.abs(apart))[moved]
        signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
        sums = np.abs(signs @ ranks)
        return float(np.mean(sums >= abs(np.sign(apart[moved]) @ ranks)))
    return float(stats.wilcoxon(apart, zero_method="pratt").pvalue)


def is_spreadless(apart: Interval, sample: Over, size: float) -> bool:
    """Return True if all differences are equal and not 0, and only Student's t, which needs a spread, could test them.

    size: size of the compared areas; differences below its rounding error count as 0.
    """
    by_t = sample == "repeats" or apart.n < FEWEST
    step = _SAME * size
    return by_t and apart.n > 1 and apart.std <= step < abs(apart.mean)


def _effect(apart: np.ndarray, direction: Better) -> tuple[float, float]:
    """Rank-biserial correlation and common-language effect size, both in favour of the first."""
    from scipy import stats

    if len(apart) == 0:
        return np.nan, np.nan
    ranks = stats.rankdata(np.abs(apart))
    toward = np.sign(apart) * (-1 if direction == "lower" else 1)
    return float(toward @ ranks / ranks.sum()), float((toward.mean() + 1) / 2)
