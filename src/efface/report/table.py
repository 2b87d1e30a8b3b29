"""Curves become panels (one metric, one score) of judged rows, and panels become a tidy table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from efface.stats import Curve, Interval, areas, difference, interval

Verdict = Literal["better", "same", "worse", "control", "single", "alone", "missing"]

REFERENCES = ("random", "random_resampled")
"""What a method has to beat: the first of these that a metric has."""
CONTROLS = (*REFERENCES, "sobel", "true_mask")
"""Names under which a study runs maps that know nothing of the network."""
NOTHING = Interval(np.nan, np.nan, np.nan, np.nan, 0)


@dataclass(frozen=True)
class Row:
    """One method in a panel.

    cells: an interval per fraction.
    rank: by area, 1 = most truthful; 0 while there is no area.
    difference: area minus the reference's, paired; n = 0 where there is nothing to compare with.
    verdict: better, same (the interval includes 0), worse; control (the reference itself), single (one sample: no
        interval), alone (no reference), missing (no complete sample yet).
    """

    method: str
    curve: Curve
    cells: tuple[Interval, ...]
    area: Interval
    rank: int
    difference: Interval
    verdict: Verdict


@dataclass(frozen=True)
class Panel:
    """All methods on one metric and score, best area first.

    reference: the control's name, or "" where none was run.
    """

    metric: str
    score: str
    over: Literal["repeats", "images"]
    better: Literal["higher", "lower", "none"]
    fractions: tuple[float, ...]
    reference: str
    rows: tuple[Row, ...]

    def verdict(self, method: str) -> Verdict:
        """What was found on the method; "missing" where the metric does not have it."""
        return next((row.verdict for row in self.rows if row.method == method), "missing")

    def row(self, method: str) -> Row | None:
        """The method's row, or None where the metric does not have it."""
        return next((row for row in self.rows if row.method == method), None)

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Methods of which a value is not there yet."""
        return tuple(row.method for row in self.rows if row.area.n == 0 or np.isnan(row.curve.values).any())


def panels(curves: Sequence[Curve]) -> tuple[Panel, ...]:
    """One panel per metric and score, in the order in which they first come."""
    groups: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        groups.setdefault((curve.metric, curve.score), []).append(curve)
    return tuple(_panel(group) for group in groups.values())


def summary(found: Sequence[Panel]) -> pd.DataFrame:
    """A line per metric, score, method and fraction; area and difference stand in each line of their curve."""
    columns = ["metric", "score", "method", "fraction", "mean", "std", "low", "high", "n", "over", "better"]
    columns += ["area", "area_low", "area_high"]
    columns += ["random_difference", "random_difference_low", "random_difference_high"]
    lines = [
        (
            *(panel.metric, panel.score, row.method, fraction, *cell, panel.over, panel.better),
            *(row.area.mean, row.area.low, row.area.high),
            *(row.difference.mean, row.difference.low, row.difference.high),
        )
        for panel in found
        for row in panel.rows
        for fraction, cell in zip(panel.fractions, row.cells, strict=True)
    ]
    return pd.DataFrame(lines, columns=columns)


def _panel(curves: list[Curve]) -> Panel:
    first = curves[0]
    by_name = {curve.method: curve for curve in curves}
    if len(by_name) < len(curves):
        raise ValueError(
            f"{first.metric}/{first.score}: a method has two curves among {sorted(by_name)}; name each once"
        )
    reference = next((name for name in REFERENCES if name in by_name), "")
    means = {curve.method: interval(areas(curve)) for curve in curves}
    sign = -1 if first.better == "higher" else 1
    order = sorted(curves, key=lambda curve: sign * np.nan_to_num(means[curve.method].mean, nan=sign * np.inf))
    rows = []
    for place, curve in enumerate(order, 1):
        area = means[curve.method]
        compared = reference and curve.method != reference
        apart = difference(curve, by_name[reference]) if compared else NOTHING
        verdict = _verdict(curve, area, apart, reference)
        cells = tuple(interval(column) for column in curve.values.T)
        rows.append(Row(curve.method, curve, cells, area, place if area.n else 0, apart, verdict))
    return Panel(first.metric, first.score, first.over, first.better, first.at, reference, tuple(rows))


def _verdict(curve: Curve, area: Interval, apart: Interval, reference: str) -> Verdict:
    if area.n == 0:
        return "missing"
    if curve.method == reference:
        return "control"
    if not reference:
        return "alone"
    if apart.n < 2:
        return "single" if apart.n else "missing"
    if apart.low <= 0 <= apart.high:
        return "same"
    return "better" if (apart.mean > 0) == (curve.better == "higher") else "worse"
