"""Panels: the curves of one metric and score as rows with verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from efface.report.stats import (
    Curve,
    Interval,
    Summary,
    areas,
    combine,
    is_spreadless,
    lacking,
    shared,
    summaries,
    without_empty,
)

Verdict = Literal[
    "better", "same", "worse", "undecided", "control", "described", "single", "alone", "missing", "undefined"
]

Kind = Literal["method", "network"]
"""Kind of the rows of a panel."""
NOTHING = Interval(np.nan, np.nan, np.nan, np.nan, 0)
FAMILIES = {
    "network": "The network",
    "retraining": "Retraining: a new network on what is left",
    "erasure": "Erasure: the given network on what is left",
    "faithfulness": "Faithfulness: do the values predict the network's answer",
    "localisation": "Localisation: does the relevance lie on the object",
    "randomisation": "Randomisation: does the map change with what the network has learned",
    "robustness": "Robustness: does the map hold still where the image hardly moves",
    "axiom": "Axioms: does the map add up",
    "complexity": "Complexity: how much of the image the map takes",
    "control": "Controls: may the other metrics be believed",
}
"""Families of metrics with their headings, in the order of the page. Other families follow."""
HOW = ("unit", "explain", "imputer", "ties", "count")
"""Settings that a number depends on besides its method: columns of the table, and words below each figure."""


@dataclass(frozen=True)
class Row:
    """One method in a panel.

    method: name of the method.
    curve: its curve; for several draws of its maps, the mean over draws.
    intervals: an interval for each point.
    area: interval of the number that summarises the curve: its area, the mean of its points, or its only value.
    by: method of the intervals.
    rank: rank by area, 1 is the most truthful. It is 0 if there is no area, if points are missing, if the metric has no
        direction, or as long as a value of any method of the panel is not measured.
    difference: area minus the reference's area, paired, over the points that both have; n = 0 without a comparison.
    verdict: one of these words.
        better, worse: the interval of the difference excludes 0.
        same: the interval includes 0.
        undecided: few samples with equal differences, so that no test is possible.
        control: the row is the reference.
        described: the metric has no direction.
        single: one sample gives no interval.
        alone: there is no reference.
        missing: there is no complete sample yet.
        undefined: the row or the reference was measured, but the metric has no value.
    draws: number of draws of the method's maps.
    between: standard deviation of the mean area between draws; NaN for one draw.
    awaited: number of draws without any result yet.
    """

    method: str
    curve: Curve
    intervals: tuple[Interval, ...]
    area: Interval
    by: Literal["bootstrap", "t"]
    rank: int
    difference: Interval
    verdict: Verdict
    draws: int = 1
    between: float = np.nan
    awaited: int = 0

    @property
    def nothing(self) -> Literal["missing", "undefined"]:
        """Reason for a missing number."""
        return "missing" if _is_unfinished(self) else "undefined"

    @property
    def lacking(self) -> tuple[float, ...]:
        """Points at which the method has no value; empty if it has no value at any point."""
        return lacking(self.curve) if self.area.n else ()

    @property
    def is_control(self) -> bool:
        """True if its maps do not depend on the network: a control, or a view of one."""
        return self.curve.control


@dataclass(frozen=True)
class Panel:
    """All methods on one metric and score, best area first. Without a direction they have the given order.

    metric: name of the metric.
    score: name of the score.
    sample: kind of the samples.
    direction: direction of a truthful map; "none" if the metric only describes.
    fractions: points of the axis.
    axis: quantity of the axis.
    family: family of the metric.
    stands: summary of a curve: "area" or "mean", or "value" if the metric is one number.
    reference: name of the row that the others are compared with; "" if there is none.
    rows: the rows.
    empty: points that were left out of `fractions`, for no method has a value there.
    kind: kind of the rows.
    opposite: name of the metric that erases in the opposite order; "" if there is none.
    value_unit: unit of the values, such as "%"; "" if they have none.
    """

    metric: str
    score: str
    sample: Literal["repeats", "images"]
    direction: Literal["higher", "lower", "none"]
    fractions: tuple[float, ...]
    axis: str
    family: str
    stands: Literal["area", "mean", "value"]
    reference: str
    rows: tuple[Row, ...]
    empty: tuple[float, ...] = ()
    kind: Kind = "method"
    opposite: str = ""
    value_unit: str = ""

    def verdict(self, method: str) -> Verdict:
        """Return the verdict on a method; "missing" if the panel does not have the method."""
        return next((row.verdict for row in self.rows if row.method == method), "missing")

    def row(self, method: str) -> Row | None:
        """Return the row of a method; None if the panel does not have the method."""
        return next((row for row in self.rows if row.method == method), None)

    @property
    def by_chance(self) -> bool:
        """True if the methods are compared with a control."""
        found = self.row(self.reference)
        return found is not None and found.is_control

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Methods with values that are not measured yet."""
        return tuple(row.method for row in self.rows if row.nothing == "missing")


def panels(curves: Sequence[Curve], references: Sequence[str] = (), kind: Kind = "method") -> tuple[Panel, ...]:
    """Return one panel for each metric and score, by family, then in the order of the curves.

    Curves that are draws of one method (`draw_of`) become one row. Points without a value of any method are left out.

    references: names of rows; the others are compared with the first of these that a metric has.
    kind: kind of the rows.
    """
    curves = without_empty(curves)
    metrics: dict[str, dict[str, list[Curve]]] = {}
    for curve in curves:
        metrics.setdefault(curve.metric, {}).setdefault(curve.score, []).append(curve)
    found = [panel for scores in metrics.values() for panel in _panels(list(scores.values()), references, kind)]
    known = {family: place for place, family in enumerate(FAMILIES)}
    return tuple(sorted(found, key=lambda panel: known.get(panel.family, len(known))))


@dataclass(frozen=True)
class _Method:
    """A method's curve (the mean of its draws), and its difference to the reference as a curve of one point."""

    curve: Curve
    draws: int
    between: float
    awaited: int
    apart: Curve | None = None


def _panels(groups: list[list[Curve]], references: Sequence[str], kind: Kind) -> list[Panel]:
    """Return the panels of one metric. They are resampled together, because resampling takes most of the time."""
    sides = [_compared(_combined(group), references) for group in groups]
    wanted = [each.curve for side in sides for each in side]
    wanted += [each.apart for side in sides for each in side if each.apart is not None]
    # The keys are identities: two methods may have equal curves, and arrays cannot be keys.
    found = dict(zip(map(id, wanted), summaries(wanted), strict=True))
    return [_panel(side, found, references, kind) for side in sides]


def _combined(curves: list[Curve]) -> list[_Method]:
    first, draws = curves[0], dict[str, list[Curve]]()
    for curve in curves:
        draws.setdefault(curve.draw_of or curve.method, []).append(curve)
    names = [curve.method for curve in curves]
    if len(set(names)) < len(names):
        raise ValueError(f"{first.metric}/{first.score}: a method has two curves among {sorted(names)}; name each once")
    found = []
    for name, each in draws.items():
        measured = [curve for curve in each if not np.isnan(curve.values).all()] or each[:1]
        whole = combine(measured, name)
        found.append(_Method(whole.curve, whole.draws, whole.between, len(each) - len(measured)))
    return found


def _compared(methods: list[_Method], references: Sequence[str]) -> list[_Method]:
    by_name = {each.curve.method: each.curve for each in methods}
    reference = next((by_name[name] for name in references if name in by_name), None)
    if reference is None or reference.direction == "none":
        return methods
    found = []
    for each in methods:
        if each.curve.method == reference.method:
            found.append(each)
            continue
        rows, mine, its = np.intersect1d(each.curve.pairs, reference.pairs, return_indices=True)
        one, other = shared(each.curve, reference)
        values = (areas(one)[mine] - areas(other)[its])[:, None]
        pairs = tuple(int(row) for row in rows)
        found.append(replace(each, apart=replace(each.curve, at=(0.0,), values=values, pairs=pairs, missing=None)))
    return found


def _panel(methods: list[_Method], found: Mapping[int, Summary], references: Sequence[str], kind: Kind) -> Panel:
    first = methods[0].curve
    names = [each.curve.method for each in methods]
    reference = next((name for name in references if name in names), "")
    if first.direction != "none":
        sign = -1 if first.direction == "higher" else 1
        means = {id(each): found[id(each.curve)].area.mean for each in methods}
        ordered = {each: sign * np.nan_to_num(mean, nan=sign * np.inf) for each, mean in means.items()}
        methods = sorted(methods, key=lambda each: (bool(lacking(each.curve)), ordered[id(each)]))
    control = next((each.curve for each in methods if each.curve.method == reference), None)
    rows, ranks = [], first.direction != "none" and not any(map(_is_unfinished, methods))
    for place, each in enumerate(methods, 1):
        area, cells, by = found[id(each.curve)]
        apart = NOTHING if each.apart is None else found[id(each.apart)].area
        rank = place if ranks and area.n and not lacking(each.curve) else 0
        verdict = _verdict(each.curve, area, apart, control)
        drawn = (each.draws, each.between, each.awaited)
        rows.append(Row(each.curve.method, each.curve, cells, area, by, rank, apart, verdict, *drawn))
    stands: Literal["area", "mean", "value"] = "value" if len(first.at) == 1 else first.summary
    return Panel(
        metric=first.metric,
        score=first.score,
        sample=first.sample,
        direction=first.direction,
        fractions=first.at,
        axis=first.axis,
        family=first.family,
        stands=stands,
        reference=reference,
        rows=tuple(rows),
        empty=first.empty,
        kind=kind,
        opposite=first.opposite,
        value_unit=first.value_unit,
    )


def _verdict(curve: Curve, area: Interval, apart: Interval, reference: Curve | None) -> Verdict:
    if area.n == 0:
        return "missing" if _is_awaited(curve) else "undefined"
    if reference is not None and curve.method == reference.method:
        return "control"
    if curve.direction == "none":
        return "described"
    return "alone" if reference is None else _against(reference, curve, area, apart)


def _against(reference: Curve, curve: Curve, area: Interval, apart: Interval) -> Verdict:
    if apart.n == 0:
        return "missing" if _is_awaited(reference) or _is_awaited(curve) else "undefined"
    if apart.n == 1:
        return "single"
    if is_spreadless(apart, curve.sample, max(abs(area.mean), abs(apart.mean))):
        return "undecided"
    if apart.low <= 0 <= apart.high:
        return "same"
    return "better" if (apart.mean > 0) == (curve.direction == "higher") else "worse"


def _is_unfinished(method: _Method | Row) -> bool:
    """Return True if a draw of the method, or a part of its curve, is still to be measured."""
    return bool(method.awaited) or _is_awaited(method.curve)


def _is_awaited(curve: Curve) -> bool:
    """Return True if a part of a curve is still to be measured.

    If `missing` is None, this is a point without any value, or a repeat without one of its trainings. An image without
    a value does not count, for the metric may not score it.
    """
    if curve.missing is not None:
        return bool(curve.missing)
    nothing = np.isnan(curve.values)
    return bool(nothing.all(axis=0).any() or (curve.sample == "repeats" and nothing.any()))
