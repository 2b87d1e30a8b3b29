"""Panels: the curves of one metric and score as rows with verdicts."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from efface.report.stats import Curve, Interval, lacking
from efface.report.stats.skewed import By

Verdict = Literal[
    "better", "same", "worse", "undecided", "control", "described", "single", "alone", "missing", "failed", "undefined"
]

Kind = Literal["method", "network"]
"""Kind of the rows of a panel."""
ALPHA = 0.05
"""Probability of at least one false difference among all comparisons that are corrected together."""
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
    rank: 1 and the number of methods that are shown to be better, so methods that are not told apart may share a rank.
        It is 0 before `between.with_ranks`, and stays 0 if there is no area, if the method failed, if the metric has no
        direction, or as long as a value of any method of the panel is not measured.
    difference: area minus the reference's area, paired, over the points that both have; n = 0 without a comparison.
    p: p value of the difference, corrected for all comparisons that are made together; NaN without a test.
    tested: how the difference was tested, or why it was not.
    verdict: one of these words.
        better, worse: p is below 0.05.
        same: p is 0.05 or more.
        undecided: there are samples, but no test holds; see `tested`.
        control: the row is the reference.
        described: the metric has no direction.
        single: one sample has no interval; of networks, one training each shows nothing about other trainings.
        alone: there is no reference.
        missing: there is no complete sample yet.
        failed: the method, or the metric on it, failed when it was tried last; `curve.failed` says why.
        undefined: the row or the reference was measured, but the metric has no value.
    draws: number of draws of the method's maps.
    between: standard deviation of the mean area between draws; NaN for one draw.
    awaited: number of draws without any result yet.
    """

    method: str
    curve: Curve
    intervals: tuple[Interval, ...]
    area: Interval
    by: By
    rank: int
    difference: Interval
    verdict: Verdict
    p: float = np.nan
    tested: By = "none"
    draws: int = 1
    between: float = np.nan
    awaited: int = 0

    @property
    def nothing(self) -> Literal["missing", "failed", "undefined"]:
        """Reason for a missing number."""
        if self.curve.failed:
            return "failed"
        return "missing" if is_unfinished(self.curve, self.awaited) else "undefined"

    @property
    def lacking(self) -> tuple[float, ...]:
        """Points at which the method has no value; empty if it has no value at any point."""
        return lacking(self.curve) if self.area.n else ()

    @property
    def is_control(self) -> bool:
        """True if its maps are no explanation of the network: a control, or a view of one."""
        return self.curve.control

    @property
    def is_blind(self) -> bool:
        """True if it is a control whose maps do not depend on the network."""
        return self.is_control and self.curve.knows == "nothing"

    @property
    def is_optimised(self) -> bool:
        """True if it is a control whose maps are optimised on the response that metrics measure."""
        return self.is_control and self.curve.knows == "metric"


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
    fixed: points at which the score is the same for all methods and samples, see `panels.fixed_points`.
    kind: kind of the rows.
    opposite: name of the metric that erases in the opposite order; "" if there is none.
    value_unit: unit of the values, such as "%"; "" if they have none.
    over: what the intervals are over, in words.
    corrected: number of comparisons that the verdicts are corrected for.
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
    fixed: tuple[float, ...] = ()
    kind: Kind = "method"
    opposite: str = ""
    value_unit: str = ""
    over: str = "images"
    corrected: int = 0

    def verdict(self, method: str) -> Verdict:
        """Return the verdict on a method; "missing" if the panel does not have the method."""
        return next((row.verdict for row in self.rows if row.method == method), "missing")

    def row(self, method: str) -> Row | None:
        """Return the row of a method; None if the panel does not have the method."""
        return next((row for row in self.rows if row.method == method), None)

    @property
    def by_chance(self) -> bool:
        """True if the methods are compared with a control."""
        row = self.row(self.reference)
        return row is not None and row.is_control

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Methods with values that are not measured yet."""
        return tuple(row.method for row in self.rows if row.nothing == "missing")


def is_unfinished(curve: Curve, awaited: int) -> bool:
    """Return True if a draw of the method, or a part of its curve, is still to be measured."""
    return bool(awaited) or is_awaited(curve)


def is_awaited(curve: Curve) -> bool:
    """Return True if a part of a curve is still to be measured.

    If `missing` is None, this is a point without any value, or a repeat without one of its trainings. An image without
    a value does not count, for the metric may not score it.
    """
    if curve.missing is not None:
        return bool(curve.missing)
    nothing = np.isnan(curve.values)
    return bool(nothing.all(axis=0).any() or (curve.sample == "repeats" and nothing.any()))
