"""Agreement of two metrics, or of the images of one metric, in their rankings of the methods."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from efface.report.stats.curve import Curve, table
from efface.report.stats.means import resampled

RESAMPLES = 1000
_SAME = 2.0**-40  # relative to the largest mean: rounding errors must not rank equal values


class Agreement(NamedTuple):
    """An agreement with its interval; NaN if there are too few values.

    value: 1 if all rankings of the methods are equal.
    low: lower end of the interval.
    high: upper end of the interval.
    n: number of methods that were ranked.
    """

    value: float
    low: float
    high: float
    n: int


def metric_agreement(
    one: Sequence[Curve], other: Sequence[Curve], level: float = 0.95, resamples: int = RESAMPLES
) -> Agreement:
    """Kendall's tau-b of two metrics' rankings of the methods that both have, by mean area, most truthful first.

    The value is -1 if one ranking is the reverse of the other, and near 0 if the rankings are unrelated. The
    `direction` of the curves decides which values are truthful ("none" counts as higher). MoRF and LeRF therefore agree
    if tau is 1. Only samples that all methods of a metric have are used.

    The interval describes the uncertainty of the rankings of these methods, not of other methods. Images are drawn with
    replacement; images that both metrics have are drawn for both at once. Repeats are too few for that, so their means
    vary as Student's t with their standard errors. If means are close, the interval is a little too low, because
    drawing adds noise. One repeat gives no interval.

    one: a curve for each method, all of one metric and score.
    other: the same for the other metric.
    level: probability that the interval covers the true value, in (0, 1).
    resamples: number of resamples; time and precision grow with it.

    Source: Kendall 1945 (tau-b).
    """
    names = [curve.method for curve in one if curve.method in {each.method for each in other}]
    if len(names) < 2:
        found = ", ".join(names) or "none"
        raise ValueError(
            f"{_name(one)} and {_name(other)} have these methods in common: {found}; a ranking needs at least two"
        )
    sides = [[next(curve for curve in side if curve.method == name) for name in names] for side in (one, other)]
    tables = [table(side) for side in sides]
    ready = np.all([~np.isnan(values).all(axis=0) for _, values in tables], axis=0)
    tables = [(rows, _whole(values[:, ready])) for rows, values in tables]
    signs = [-1 if side[0].direction == "lower" else 1 for side in sides]
    n = int(ready.sum())
    if n < 2 or any(np.isnan(values).all() for _, values in tables):
        return Agreement(np.nan, np.nan, np.nan, n)
    means = [sign * np.nanmean(values, axis=0)[None] for sign, (_, values) in zip(signs, tables, strict=True)]
    drawn = _drawn(tables, [side[0].sample == "images" for side in sides], resamples)
    taus = tau_b(signs[0] * drawn[0], signs[1] * drawn[1])
    return Agreement(float(tau_b(*means)[0]), *_ends(taus, level), n)


def image_agreement(curves: Sequence[Curve], level: float = 0.95, resamples: int = RESAMPLES) -> Agreement:
    """Krippendorff's alpha, ordinal, over the images of one metric: each image ranks the methods by their areas.

    The value is 1 if all images give the same ranking, and 0 if the ranks are as in shuffled rankings. A method without
    a value on an image is a missing value. The interval is the bootstrap's over images.

    curves: a curve for each method, all of one metric and score, over images.
    level: probability that the interval covers the true value, in (0, 1).
    resamples: number of resamples; time and precision grow with it.
    """
    from scipy import stats

    if len(curves) < 2:
        raise ValueError(f"{_name(curves)}: {len(curves)} curves; a ranking needs at least two methods")
    if curves[0].sample != "images":
        raise ValueError(
            f"{_name(curves)}: its samples are {curves[0].sample}; image_agreement needs images as samples"
        )
    _, values = table(curves)
    step = _SAME * np.max(np.abs(values), initial=0, where=~np.isnan(values))
    ranks = stats.rankdata(np.round(values / step) if step else values, axis=1, nan_policy="omit")
    n = int((~np.isnan(ranks)).any(axis=0).sum())
    images = len(ranks)
    # The frequency of a rank for a method is a mean over images, so alpha needs only the bootstrap of means.
    places = np.arange(1, len(curves) + 0.5, 0.5)
    shares = (ranks[:, :, None] == places).astype(np.float64).reshape(images, -1)
    counts = images * resampled(shares, resamples).reshape(resamples, len(curves), len(places)) if images else shares
    drawn = [_alpha(each, places, "ordinal") for each in counts]
    return Agreement(krippendorff_alpha(ranks.astype(np.float64)), *_ends(np.array(drawn), level), n)


def krippendorff_alpha(
    values: Float[np.ndarray, "raters units"], scale: Literal["nominal", "ordinal", "interval"] = "ordinal"
) -> float:
    """Agreement of raters on units beyond chance, 1 at best, 0 for chance.

    NaN values are missing. A unit with fewer than two values does not count. The result is NaN if all values are equal,
    or if no two values can be paired.

    Formula: 1 - observed disagreement / expected disagreement.

    scale: disagreement of two values. nominal: 1 if they differ, else 0; ordinal: the squared number of values between
        them, including half of the values equal to them; interval: their squared difference.

    Source: Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section D.
    """
    raters, units = values.shape
    known = ~np.isnan(values)
    places, which = np.unique(values[known], return_inverse=True)
    unit = np.broadcast_to(np.arange(units), (raters, units))[known]
    size = max(1, len(places))
    counts = np.bincount(unit * size + which, minlength=units * size).reshape(units, size)
    return _alpha(counts.astype(np.float64), places if len(places) else np.zeros(1), scale)


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


def _alpha(counts: np.ndarray, places: np.ndarray, scale: str) -> float:
    """Krippendorff's alpha of the counts of each value (second axis) for each unit (first axis)."""
    counts = counts * (counts.sum(axis=1, keepdims=True) > 1.5)  # units with pairs; counts of a resample are inexact
    of_unit, of_value = counts.sum(axis=1), counts.sum(axis=0)
    n = of_value.sum()
    if n == 0:
        return np.nan
    if scale == "nominal":
        alike = of_unit**2 - (counts**2).sum(axis=1)
        expected = n**2 - (of_value**2).sum()
    else:
        # The number of values between two values (with half of the equal ones) is the difference of their positions in
        # the sorted pool.
        where = np.cumsum(of_value) - of_value / 2 if scale == "ordinal" else places
        where = where - of_value @ where / n
        alike = 2 * (of_unit * (counts @ where**2) - (counts @ where) ** 2)
        expected = 2 * n * (of_value @ where**2)
    observed = np.divide(alike, of_unit - 1, out=np.zeros(len(of_unit)), where=of_unit > 1).sum()
    return float(1 - (n - 1) * observed / expected) if expected > 0 else np.nan


def _whole(values: np.ndarray) -> np.ndarray:
    """Return the values with NaN in each sample that a method lacks."""
    return np.where(np.isnan(values).any(axis=1, keepdims=True), np.nan, values)


def _drawn(tables: list[tuple[tuple[int, ...], np.ndarray]], images: list[bool], resamples: int) -> list[np.ndarray]:
    """Return resampled means, `resamples` rows for each side. Images of both sides are drawn together."""
    rows = sorted({row for (named, _), by_image in zip(tables, images, strict=True) if by_image for row in named})
    side_by_side = [np.full((len(rows), values.shape[1]), np.nan) for _, values in tables]
    for (named, values), by_image, place in zip(tables, images, side_by_side, strict=True):
        if by_image:
            place[np.searchsorted(rows, named)] = values
    drawn = np.split(resampled(np.hstack(side_by_side), resamples), 2, axis=1) if rows else list(side_by_side)
    generator = np.random.default_rng(0)
    for side, ((_, values), by_image) in enumerate(zip(tables, images, strict=True)):
        if not by_image:
            known = values[~np.isnan(values[:, 0])]
            n = len(known)
            error = known.std(axis=0, ddof=1) / n**0.5 if n > 1 else np.full(values.shape[1], np.nan)
            drawn[side] = known.mean(axis=0) + error * generator.standard_t(max(1, n - 1), (resamples, len(error)))
    return drawn


def _ends(drawn: np.ndarray, level: float) -> tuple[float, float]:
    """Return the ends of the middle `level` of the drawn values, without NaN."""
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) == 0:
        return np.nan, np.nan
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _name(curves: Sequence[Curve]) -> str:
    return f"{curves[0].metric}/{curves[0].score}" if curves else "an empty list of curves"
