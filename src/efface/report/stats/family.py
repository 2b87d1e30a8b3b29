"""Corrections for many tests at once: the probability of any false difference among all of them stays at the level."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from efface.base.draws import seed_of
from efface.report.stats.crossed import FEWEST_POOLED, common_variance
from efface.report.stats.skewed import ENOUGH, moments, statistic

FLIPS = 4000
"""Draws of signs. A corrected p near 0.05 then varies by 0.003 between seeds."""
_BLOCK = 1 << 22  # numbers drawn at once, 32 MB


def holm(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Return corrected p values. Rejections below alpha contain an error with probability at most alpha.

    NaN stays NaN and does not count as a test. Source: Holm 1979.
    """
    corrected = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return corrected


def min_p(
    p: Float[np.ndarray, " tests"],
    differences: Float[np.ndarray, "images columns"],
    columns: tuple[int, ...],
    by_sign: Bool[np.ndarray, " columns"],
    groups: Sequence[int] = (),
    flips: int = FLIPS,
) -> Float[np.ndarray, " tests"]:
    """Return p values that are corrected for all tests, as `holm` does, but for what the images have in common.

    Metrics and methods that are alike make the same errors on the same images. The signs of all differences of an image
    are drawn together, so the smallest p of a draw shows how small p becomes by chance among these very tests. Tests
    without images (of trained networks) count as independent. A step-down correction. If no draw is as extreme as a
    test, Holm's correction gives its p value.

    With fewer than 50 images, the variances of a metric's differences are moved toward their common value, the more the
    less they differ (Smyth 2004), here and in every draw. So few images find nearly what a known variance would. The
    common value comes from sums of squares, which no sign changes, so the correction stays exact.

    p: p value of each test; NaN is no test and stays NaN.
    differences: paired differences of the tests over images, by row of the test split; NaN without a value.
    columns: for each column of `differences`, its test.
    by_sign: True for columns that are tested as proportions (McNemar's statistic), not by Hall's.
    groups: for each column, a number of its metric; () if no two columns share a scale.
    flips: number of draws of signs.

    Source: Westfall & Young 1993, algorithm 2.8, with sign-flips.
    """
    from scipy.special import ndtr, stdtr, stdtrit

    adjusted = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    if len(tested) < 2:
        adjusted[tested] = p[tested]
        return adjusted
    kept = [i for i, test in enumerate(columns) if not np.isnan(p[int(test)])]
    values = differences[:, kept] if kept else np.empty((len(differences), 0))
    rows = ~np.isnan(values).all(axis=1)
    values = values[rows]
    known = ~np.isnan(values)
    first = np.where(known, values, 0.0)
    here = moments(values)
    scale = np.where(here.n > 0, np.sqrt((first**2).sum(axis=0) / np.maximum(here.n, 1)), 1.0)
    whole = np.sqrt(np.abs(first).sum(axis=0))
    signed = by_sign[kept] if kept else np.zeros(0, dtype=bool)
    first = np.divide(first, scale, out=np.zeros_like(first), where=scale > 0)
    n = np.maximum(here.n, 2).astype(np.float64)
    freedom = float(n.max(initial=2)) - 1  # the scale on which all tests are compared: |t| of so many images
    hall = np.flatnonzero(~signed)
    cube = first[:, hall] ** 3
    more, share = _common(n[hall], scale[hall] ** 2, np.array(groups, dtype=np.intp)[kept][hall] if groups else None)
    own, moved = p.copy(), more > 0
    t = _hall(n[hall], first[:, hall].sum(axis=0), cube.sum(axis=0), more, share)[moved]
    own[np.array(columns, dtype=np.intp)[kept][hall[moved]]] = 2 * stdtr((n[hall] - 1 + more)[moved], -t)
    order = tested[np.argsort(own[tested], kind="stable")]
    place = {int(test): i for i, test in enumerate(order)}
    where = np.array([place[int(columns[i])] for i in kept], dtype=np.intp)
    like = n[hall] - 1 + more == freedom
    limits = -stdtrit(freedom, np.maximum(own[order], 1e-300) / 2)
    generator = np.random.default_rng(seed_of("sign-flips"))
    exceeded = np.zeros(len(order), dtype=np.intp)
    size = max(1, _BLOCK // max(1, len(order)))
    root = np.divide(scale, whole, out=np.zeros_like(whole), where=whole > 0)[signed]
    others = np.setdiff1d(np.arange(len(order)), where)
    for start in range(0, flips, size):
        count = min(size, flips - start)
        drawn, largest = np.ones((count, len(order))), np.zeros((count, len(order)))
        drawn[:, others] = generator.random((count, len(others)))
        if len(where):
            signs = generator.integers(0, 2, (count, len(values))) * 2.0 - 1.0
            t = _hall(n[hall], signs @ first[:, hall], signs @ cube, more, share)
            drawn[:, where[hall[~like]]] = 2 * stdtr((n[hall] - 1 + more)[~like], -t[:, ~like])
            drawn[:, where[signed]] = 2 * ndtr(-np.abs(signs @ first[:, signed] * root))
            largest[:, where[hall[like]]] = t[:, like]
        # Of the p values, only one below all later ones counts: the quantile takes long.
        counts = (drawn < 1) & (drawn == np.minimum.accumulate(drawn[:, ::-1], axis=1)[:, ::-1])
        largest[counts] = -stdtrit(freedom, np.maximum(drawn[counts], 1e-300) / 2)
        largest = np.maximum.accumulate(largest[:, ::-1], axis=1)[:, ::-1]
        exceeded += np.count_nonzero(largest >= limits * (1 - 1e-9), axis=0)
    corrected = np.maximum.accumulate((exceeded + 1) / (flips + 1))
    adjusted[order] = np.where(exceeded > 0, corrected, np.minimum(corrected, holm(own[order])))
    return np.maximum(adjusted, p)


def _common(n: np.ndarray, squares: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return for each column the degrees of freedom of its metric's common variance, and this variance.

    The variance is in parts of the column's own mean square. Without a common variance, the degrees of freedom are 0.
    """
    more, share = np.zeros(len(n)), np.ones(len(n))
    for group in () if groups is None else np.unique(groups):
        same = np.flatnonzero((groups == group) & (squares > 0))
        same = same[n[same] == n[same].max(initial=0)]
        if len(same) >= FEWEST_POOLED and n[same[0]] < ENOUGH:
            freedom, variance = common_variance(squares[same], float(n[same[0]]))
            more[same] = min(freedom, n[same[0]] * len(same))
            share[same] = variance / squares[same]
    return more, share


def _hall(n: np.ndarray, sums: np.ndarray, cubes: np.ndarray, more: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return |t| of columns of n values with a mean square of 1, from the sums of their first and third powers.

    more, share: degrees of freedom and value of a common variance, see `_common`.
    """
    mean = sums / n
    variance = np.maximum(1 - mean * mean, 0)  # products in place of powers, which take much longer
    third = cubes / n - mean * (3 - 2 * mean * mean)
    skewness = np.divide(third, variance * np.sqrt(variance), out=np.zeros_like(third), where=variance > 1e-12)
    moved = (more * share + n * variance) / (more + n - 1)
    return np.abs(statistic(n, mean, np.sqrt(moved), skewness))
