"""Means of curves with their intervals: over images, or over trainings and images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from efface.report.stats.crossed import (
    FEWEST_POOLED,
    Spread,
    Trained,
    difference_of_trainings,
    mean_of_trainings,
    spreads,
)
from efface.report.stats.curve import Curve, all_rows, areas, image_areas, measure_of, on_rows, shared
from efface.report.stats.drawn import draw_variance, widened
from efface.report.stats.in_rounds import (
    bets_on_differences,
    bets_on_means,
    in_order,
    is_in_rounds,
    level_of,
    spent,
    uses_betting,
)
from efface.report.stats.interval import Interval
from efface.report.stats.skewed import By, Estimate, image_estimates


class Summary(NamedTuple):
    """The area of a curve and each of its points, with intervals.

    area: interval of the area.
    points: interval of each point.
    by: how the area's interval was made.
    """

    area: Interval
    points: tuple[Interval, ...]
    by: By


def summary(curve: Curve, level: float = 0.95) -> Summary:
    """Area and points of a curve, each with its interval.

    level: probability that an interval covers the true mean, in (0, 1).
    """
    return summaries([curve], level)[0]


def summaries(curves: Sequence[Curve], level: float = 0.95) -> tuple[Summary, ...]:
    """Summary of each curve.

    Curves over images: see `image_estimates`. Curves over repeats: see `mean_of_trainings`; those of one metric and
    score learn the spread between trainings from one another.
    """
    by_index: dict[int, Summary] = {}
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, curve in enumerate(curves):
        what = (curve.sample, curve.bounds, len(curve.values), curve.looks) + (
            measure_of(curve) if curve.sample == "repeats" else ()
        )
        groups.setdefault(what, []).append(i)
    for members in groups.values():
        several = [curves[i] for i in members]
        made = _of_images(several, level) if several[0].sample == "images" else _of_repeats(several, level)
        by_index.update(zip(members, made, strict=True))
    return tuple(by_index[i] for i in range(len(curves)))


def differences(pairs: Sequence[tuple[Curve, Curve]], level: float = 0.95) -> tuple[Estimate, ...]:
    """Return the mean area of the first curve minus that of the second for each pair, over the samples of both.

    Two curves are compared at the points that both have. See `image_estimates` and `difference_of_trainings`.

    ValueError: the curves are not all of one metric and score, with the same points.
    """
    if not pairs:
        return ()
    first = pairs[0][0]
    whole = list({id(curve): curve for pair in pairs for curve in pair}.values())
    for curve in whole:
        ours, theirs = (first.metric, first.score, first.at), (curve.metric, curve.score, curve.at)
        if ours != theirs:
            raise ValueError(
                f"curves {ours} and {theirs} measure different things; compare curves of one metric and score"
            )
    if is_in_rounds(pairs):
        return tuple(_in_rounds(pairs, level))
    if first.sample == "images":
        columns, _ = difference_columns(pairs)
        made = list(image_estimates(columns, level, bounds=first.bounds, difference=True))
    else:
        made = _of_trainings(pairs, whole, level)
    more = {id(curve): draw_variance(curve) for curve in whole if curve.by_draw is not None}
    if not more:
        return tuple(made)
    return tuple(
        widened(estimate, more.get(id(one), ()) + more.get(id(other), ()), level)
        for estimate, (one, other) in zip(made, pairs, strict=True)
    )


def _in_rounds(pairs: Sequence[tuple[Curve, Curve]], level: float) -> list[Estimate]:
    """Return the differences of curves of which some are measured in rounds."""
    known = next(curve for pair in pairs for curve in pair if curve.looks is not None)
    if not uses_betting(known):
        return spent(pairs, level, differences)
    columns, rows = difference_columns(pairs)
    return bets_on_differences(in_order(columns, rows, pairs), known, level)


def _of_trainings(pairs: Sequence[tuple[Curve, Curve]], whole: Sequence[Curve], level: float) -> list[Estimate]:
    first = whole[0]
    scale = None if first.bounds is None else first.bounds[1] - first.bounds[0]
    spread = _spreads(whole)
    pooled = len(whole) >= FEWEST_POOLED
    estimates = []
    for one, other in pairs:
        left, right = shared(one, other)
        trained = _together(left, right)
        if not len(trained[0].means):
            estimates.append(NO_ESTIMATE)
            continue
        known = (spread[id(one)], spread[id(other)])
        changed = left is not one or right is not other
        if changed or not pooled or np.isnan(known[0].variance + known[1].variance):
            known = _own(*trained)
        estimates.append(difference_of_trainings(*trained, known, level, scale))
    return estimates


def difference_columns(
    pairs: Sequence[tuple[Curve, Curve]],
) -> tuple[Float[np.ndarray, "images pairs"], tuple[int, ...]]:
    """Return the differences of the areas of each pair, a row for each image, and the names of the rows."""
    whole = {id(curve): curve for pair in pairs for curve in pair}
    rows = all_rows(list(whole.values()))
    place = {key: i for i, key in enumerate(whole)}
    table = np.stack([on_rows(areas(curve), curve.pairs, rows) for curve in whole.values()], axis=1)
    columns = table[:, [place[id(one)] for one, _ in pairs]] - table[:, [place[id(other)] for _, other in pairs]]
    for i, (one, other) in enumerate(pairs):
        left, right = shared(one, other)
        if left is not one or right is not other:
            columns[:, i] = on_rows(areas(left), left.pairs, rows) - on_rows(areas(right), right.pairs, rows)
    return columns, rows


def _of_images(curves: Sequence[Curve], level: float) -> list[Summary]:
    tables = [np.column_stack([areas(curve), curve.values.astype(np.float64)]) for curve in curves]
    first, together = curves[0], np.hstack(tables)
    if uses_betting(first):
        made = iter(bets_on_means(together, first, level))
    else:
        made = iter(image_estimates(together, level_of(first, level), bounds=first.bounds))
    estimated = []
    for curve, values in zip(curves, tables, strict=True):
        area, *points = (next(made) for _ in range(values.shape[1]))
        area = widened(area, draw_variance(curve), level)
        estimated.append(Summary(area.interval, tuple(point.interval for point in points), area.by))
    return estimated


def _of_repeats(curves: Sequence[Curve], level: float) -> list[Summary]:
    by_column: list[list[Estimate]] = []
    level = level_of(curves[0], level)
    columns: list[tuple[np.ndarray, np.ndarray | None]] = [
        (areas(measured), image_areas(measured)) for measured in curves
    ]
    tables: list[list[tuple[np.ndarray, np.ndarray | None]]] = [columns]
    tables += [
        [(measured.values[:, at], None if measured.images is None else measured.images[:, at]) for measured in curves]
        for at in range(len(curves[0].at))
    ]
    for table in tables:
        several = [_measured(means, images) for means, images in table]
        common = _spreads_of(several, paired=False)
        by_column.append(
            [
                mean_of_trainings(one, spread, level, curve.bounds) if len(one.means) else NO_ESTIMATE
                for one, spread, curve in zip(several, common, curves, strict=True)
            ]
        )
    estimated = []
    for curve, (area, *points) in zip(curves, zip(*by_column, strict=True), strict=True):
        area = widened(area, draw_variance(curve), level)
        estimated.append(Summary(area.interval, tuple(point.interval for point in points), area.by))
    return estimated


NO_ESTIMATE = Estimate(Interval(np.nan, np.nan, np.nan, np.nan, 0), np.nan, "none")


def _measured(means: np.ndarray, images: np.ndarray | None) -> Trained:
    """Return the trainings that have a mean."""
    known = ~np.isnan(means)
    return Trained(means[known].astype(np.float64), None if images is None else images[known])


def _together(one: Curve, other: Curve) -> tuple[Trained, Trained]:
    """Return the trainings that both curves have, in the same order."""
    mine: Any = slice(None)
    its: Any = slice(None)
    if one.pairs != other.pairs:
        _, mine, its = np.intersect1d(one.pairs, other.pairs, return_indices=True)
    means = [areas(curve)[rows] for curve, rows in ((one, mine), (other, its))]
    known: Any = ~np.isnan(means[0] - means[1])
    known = slice(None) if known.all() else known  # a slice copies nothing
    images = [image_areas(curve) for curve in (one, other)]
    if images[0] is None or images[1] is None or images[0].shape[1] != images[1].shape[1]:
        return Trained(means[0][known], None), Trained(means[1][known], None)
    return Trained(means[0][known], images[0][mine][known]), Trained(means[1][known], images[1][its][known])


def _spreads(curves: Sequence[Curve]) -> dict[int, Spread]:
    """Return the spread of each curve between trainings, from those that all curves have; NaN if there are too few."""
    common = sorted(set.intersection(*(set(curve.pairs) for curve in curves)))
    table = np.stack([areas(curve)[[curve.pairs.index(name) for name in common]] for curve in curves])
    filled = [i for i, row in enumerate(table) if not np.isnan(row).all()]
    whole = table[filled][:, ~np.isnan(table[filled]).any(axis=0)] if filled else table[:0]
    by_curve = {id(curve): Spread(np.nan, np.nan) for curve in curves}
    if whole.shape[1] > 1:
        by_curve |= {id(curves[i]): spread for i, spread in zip(filled, spreads(whole, paired=True), strict=True)}
    return by_curve


def _spreads_of(several: Sequence[Trained], *, paired: bool) -> list[Spread]:
    """Return the spread of each method; methods with fewer trainings than the others keep their own."""
    most = max((len(trained.means) for trained in several), default=0)
    full = [i for i, trained in enumerate(several) if len(trained.means) == most > 1]
    of_methods = [
        Spread(float(trained.means.var(ddof=1)), len(trained.means) - 1.0)
        if len(trained.means) > 1
        else Spread(np.nan, np.nan)
        for trained in several
    ]
    for i, spread in zip(
        full, spreads(np.stack([several[i].means for i in full]), paired=paired) if full else (), strict=True
    ):
        of_methods[i] = spread
    return of_methods


def _own(one: Trained, other: Trained) -> tuple[Spread, Spread]:
    """Return the spread of the difference of two methods alone, as that of the first."""
    n = len(one.means)
    variance = float((one.means - other.means).var(ddof=1)) if n > 1 else np.nan
    return Spread(variance, n - 1.0), Spread(0.0, n - 1.0)
