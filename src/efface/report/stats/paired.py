"""Comparisons of every two methods on one metric: paired tests of the mean, and effect sizes."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from efface.report.stats.curve import Curve, areas, table
from efface.report.stats.family import holm
from efface.report.stats.interval import Interval
from efface.report.stats.means import difference_columns, differences
from efface.report.stats.skewed import By

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
    by: how interval and p were made, or why there is no test.
    p: two-sided p value of the hypothesis that the mean difference is 0; NaN if there is no test.
    p_corrected: p value corrected for all pairs that were compared together.
    effect: mean difference in favour of the first method, divided by the standard deviation of the differences.
    common_language: 0 to 1, share of the samples on which the first method is better, with ties counted half; 0.5 means
        no effect.
    """

    metric: str
    score: str
    first: str
    second: str
    difference: Interval
    by: By
    p: float
    p_corrected: float
    effect: float
    common_language: float


def compare_methods(curves: Sequence[Curve], level: float = 0.95) -> tuple[Comparison, ...]:
    """Compare every two methods of one metric and score, paired by sample, with Holm's correction over all these pairs.

    If one of two methods lacks points that the other has, the areas are over the points that both have. The tests are
    those of the mean difference: `image_estimates` over images, `difference_of_trainings` over repeats.

    level: probability that an interval covers the true mean, in (0, 1).

    Source: Demsar 2006, section 3.2 (Holm for all pairs); Vargha & Delaney 2000, section 3 (common language, ties
    counted half); Cohen 1988 (the effect is his d for paired samples).
    """
    if len(curves) < 2:
        return ()
    if len({curve.pairs for curve in curves}) > 1:
        for one, two in itertools.combinations(curves, 2):
            if one.pairs and two.pairs and not set(one.pairs) & set(two.pairs):
                raise ValueError(
                    f"{one.metric}/{one.score}: {one.method} and {two.method} have no sample in common; measure both "
                    "on the same images or seeds"
                )
    _, values = table(curves)  # refuses what measures different things
    size = float(np.max(np.abs(values), initial=0, where=~np.isnan(values)))
    pairs = list(itertools.combinations(curves, 2))
    made = differences(pairs, level)
    columns, _ = difference_columns(pairs)
    known = ~np.isnan(columns)
    apart = np.where(known & (np.abs(columns) > _SAME * size), columns, 0.0)
    n = np.maximum(known.sum(axis=0), 1)
    toward = np.sign(apart) * (-1 if curves[0].direction == "lower" else 1)
    share = np.where(known.any(axis=0), (toward.sum(axis=0) / n + 1) / 2, np.nan)
    corrected = holm(np.array([estimate.p for estimate in made]))
    return tuple(
        Comparison(
            *(one.metric, one.score, one.method, two.method, estimate.interval, estimate.by, estimate.p, float(p)),
            effect=_effect(estimate.interval, one.direction),
            common_language=float(common),
        )
        for (one, two), estimate, p, common in zip(pairs, made, corrected, share, strict=True)
    )


def mean_areas(curves: Sequence[Curve]) -> tuple[float, ...]:
    """Return the mean area of each curve, over the samples that have one."""
    by_curve = (areas(curve) for curve in curves)
    return tuple(float(np.nanmean(values)) if not np.isnan(values).all() else np.nan for values in by_curve)


def _effect(interval: Interval, direction: str) -> float:
    """Return the mean difference in standard deviations, in favour of the first method; NaN without a spread."""
    if not interval.std > 0:
        return 0.0 if interval.n > 1 and interval.mean == 0 else np.nan
    return interval.mean / interval.std * (-1 if direction == "lower" else 1)
