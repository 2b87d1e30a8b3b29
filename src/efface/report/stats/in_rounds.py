"""Means and differences of curves whose study measures in rounds, and stops when it knows enough.

A test that is repeated after each round finds a difference by chance more often than the level says. Here the
probability of a false verdict at any of the rounds together stays below the level.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from efface.report.stats.betting import anytime_interval, anytime_p
from efface.report.stats.curve import Curve, Looks
from efface.report.stats.interval import Interval
from efface.report.stats.looks import of_any_look, of_one_look
from efface.report.stats.skewed import Estimate

Pair = tuple[Curve, Curve]
Fixed = Callable[[Sequence[Pair], float], Sequence[Estimate]]
"""Function (pairs, level) -> estimates of their differences, for a number of samples that was fixed before."""


def uses_betting(curve: Curve) -> bool:
    """Return whether the curve's means are tested by betting: a score with a known range, over images."""
    return curve.looks is not None and curve.looks.by == "betting" and curve.bounds is not None and _of_images(curve)


def bets_on_differences(columns: np.ndarray, curve: Curve, level: float) -> list[Estimate]:
    """Return the mean of each column of differences with its interval and p value, which hold after every round.

    columns: differences by image and pair, in the order in which the images were measured.
    curve: one of the curves; it has the range of the scores and the number of planned images.
    """
    assert curve.bounds is not None
    planned, scale = _looks(curve).after[-1], curve.bounds[1] - curve.bounds[0]
    scaled = np.clip(columns / scale, -1.0, 1.0)
    low, high = anytime_interval((scaled + 1) / 2, planned, level)
    p = anytime_p(scaled, planned)
    return _estimates(columns, (2 * low - 1) * scale, (2 * high - 1) * scale, p)


def bets_on_means(columns: np.ndarray, curve: Curve, level: float) -> list[Estimate]:
    """Return the mean of each column of scores with an interval that holds after every round."""
    assert curve.bounds is not None
    planned, (least, most) = _looks(curve).after[-1], curve.bounds
    low, high = anytime_interval(np.clip((columns - least) / (most - least), 0.0, 1.0), planned, level)
    return _estimates(columns, least + low * (most - least), least + high * (most - least), np.full(len(low), np.nan))


def spent(pairs: Sequence[Pair], level: float, fixed: Fixed) -> list[Estimate]:
    """Return the difference of each pair, tested after every round at the same level.

    The p value is the probability that the smallest one of all rounds is as small by chance. The interval is that of
    the last round.

    fixed: test for a number of samples that was fixed before.

    Source: see `looks` for images. Few trainings are not normal: their p value is multiplied by the number of rounds.
    """
    measured = pairs[0][0] if pairs[0][0].looks else pairs[0][1]
    rounds, level = _looks(measured).after, level_of(measured, level)
    estimates = [Estimate(Interval(np.nan, np.nan, np.nan, np.nan, 0), np.nan, "none") for _ in pairs]
    smallest = np.full(len(pairs), np.nan)
    cuts: dict[tuple[int, int], Curve] = {}

    def cut(curve: Curve, after: int) -> Curve:
        return cuts.setdefault((id(curve), after), up_to(curve, after))

    for number, after in enumerate(rounds):
        there = [
            i
            for i, pair in enumerate(pairs)
            if number == 0 or min(len(curve.values) for curve in _in_rounds(pair)) >= after
        ]
        if not there:
            break
        made = fixed([(cut(pairs[i][0], after), cut(pairs[i][1], after)) for i in there], level)
        for i, estimate in zip(there, made, strict=True):
            smallest[i] = np.fmin(smallest[i], estimate.p)
            estimates[i] = estimate
    of_all = of_any_look(smallest, rounds) if _of_images(measured) else np.minimum(1.0, smallest * len(rounds))
    return [
        estimate._replace(p=float(p), by=estimate.by if np.isnan(p) else "spent")
        for estimate, p in zip(estimates, of_all, strict=True)
    ]


def up_to(curve: Curve, after: int) -> Curve:
    """Return the curve with its first samples alone, as one whose number of samples was fixed before."""
    images = None if curve.images is None else curve.images[:after]
    if curve.looks is None:
        return curve
    return replace(curve, values=curve.values[:after], pairs=curve.pairs[:after], images=images, looks=None)


def level_of(curve: Curve, level: float) -> float:
    """Return the level of an interval that is one of several, a look each."""
    if curve.looks is None:
        return level
    after = curve.looks.after
    return 1 - (of_one_look(1 - level, after) if _of_images(curve) else (1 - level) / len(after))


def in_order(columns: np.ndarray, rows: tuple[int, ...], pairs: Sequence[Pair]) -> np.ndarray:
    """Return the differences of each pair in the order in which its samples were measured.

    Studies with different seeds have different orders. A pair of two such studies has the order of the longer curve.

    columns: differences by row and pair. rows: names of the samples, ascending.
    """
    orders = [max((curve.pairs for curve in pair if curve.looks is not None), key=len, default=rows) for pair in pairs]
    ordered = np.full((max(map(len, orders)), len(pairs)), np.nan)
    for order in set(orders):
        same = [i for i, other in enumerate(orders) if other == order]
        ordered[: len(order), same] = columns[np.searchsorted(rows, order)][:, same]
    return ordered


def is_in_rounds(pairs: Sequence[Pair]) -> bool:
    """Return whether a curve of these is measured in rounds."""
    return any(curve.looks is not None for pair in pairs for curve in pair)


def _in_rounds(pair: Pair) -> list[Curve]:
    return [curve for curve in pair if curve.looks is not None]


def _looks(curve: Curve) -> Looks:
    assert curve.looks is not None
    return curve.looks


def _of_images(curve: Curve) -> bool:
    return curve.sample == "images"


def _estimates(columns: np.ndarray, low: np.ndarray, high: np.ndarray, p: np.ndarray) -> list[Estimate]:
    n = (~np.isnan(columns)).sum(axis=0)
    estimates = []
    for i, column in enumerate(columns.T):
        known = column[~np.isnan(column)]
        mean = float(known.mean()) if n[i] else np.nan
        std = float(known.std(ddof=1)) if n[i] > 1 else np.nan
        ends = (float(low[i]), float(high[i])) if n[i] else (np.nan, np.nan)
        estimates.append(
            Estimate(
                Interval(mean, std, *ends, int(n[i])), float(p[i]) if n[i] else np.nan, "betting" if n[i] else "none"
            )
        )
    return estimates
