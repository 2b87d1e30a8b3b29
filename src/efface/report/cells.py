"""The cells of the table of methods and metrics: a verdict, a gain, and what a reader sees on pointing at it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from efface.report.formats import between, number
from efface.report.stats import Interval
from efface.report.table import Panel, Row, Verdict
from efface.report.words import VERDICTS, interval_sentence, reason

MARKS: dict[Verdict, str] = {
    "better": "▲",
    "same": "●",
    "worse": "▼",
    "undecided": "○",
    "control": "",
    "described": "",
    "single": "○",
    "alone": "",
    "missing": "…",
    "failed": "✕",
    "undefined": "∅",
}


NOT_COMPARED = "not compared yet"


class Cell(NamedTuple):
    """One method on one metric.

    row: its row. panel: its panel.
    mark: a sign for the verdict; "" for none. word: the verdict in words.
    gain: the difference to the reference, signed so that + is better; n = 0 without one.
    shown: the gain in short, such as "+0.231"; of a metric without a reference or a direction, the value.
    interval: the interval of the gain in brackets; "" without one.
    details: what a reader sees on pointing at the cell, in sentences.
    """

    row: Row
    panel: Panel
    mark: str
    word: str
    gain: Interval
    shown: str
    interval: str
    details: str

    @property
    def order(self) -> float:
        """Number by which a column is sorted, higher is better: the gain, else the signed value; NaN without one."""
        if self.gain.n:
            return self.gain.mean
        if self.row.verdict == "control":
            return 0.0
        return (-1 if self.panel.direction == "lower" else 1) * self.row.area.mean


def cell(row: Row, panel: Panel) -> Cell:
    """Return the cell of a row."""
    gain = signed(row.difference, panel)
    word = NOT_COMPARED if row.verdict == "missing" and row.area.n else VERDICTS[row.verdict]
    shown = number(gain.mean, panel.value_unit, signed=True) if gain.n else ""
    if not shown and row.area.n and row.verdict != "control":
        shown = number(row.area.mean, panel.value_unit)
    interval = between(gain).partition(" ")[2] if gain.n > 1 else ""
    return Cell(row, panel, MARKS[row.verdict], word, gain, shown, interval, _details(row, panel, gain, word))


def standing(panels: Sequence[Panel]) -> list[tuple[str, list[Cell | None]]]:
    """Return the cells of each method, the method with the most wins first and the references last.

    panels: one for each metric, with ranks.
    """
    rows = {row.method: [panel.row(row.method) for panel in panels] for panel in panels for row in panel.rows}
    references = {panel.reference for panel in panels}

    def place(method: str) -> tuple[bool, int, float]:
        known = [row for row in rows[method] if row]
        ranks = [row.rank for row in known if row.rank]
        won = sum(row.verdict == "better" for row in known)
        return method in references, -won, sum(ranks) / len(ranks) if ranks else float("inf")

    return [
        (method, [cell(row, panel) if row else None for row, panel in zip(rows[method], panels, strict=True)])
        for method in sorted(rows, key=place)
    ]


def signed(difference: Interval, panel: Panel) -> Interval:
    """Return a difference with its sign turned if lower is better, so that + is better."""
    if panel.direction != "lower" or not difference.n:
        return difference
    return difference._replace(mean=-difference.mean, low=-difference.high, high=-difference.low)


def _details(row: Row, panel: Panel, gain: Interval, word: str) -> str:
    """Return what a reader sees on pointing at a cell, in sentences."""
    lines = [f"{row.method} on {panel.metric}: {_verdict(row, panel, word)}."]
    if gain.n:
        lines.append(f"The gain over {panel.reference} is {_with_interval(gain, panel, signed=True)}.")
        lines.append("A positive gain is better.")
    if row.area.n:
        area = row.area if row.by != "none" else row.area._replace(low=float("nan"), high=float("nan"))
        what = f"The {panel.stands} of the {panel.score.replace('_', ' ')}"
        lines.append(f"{what} is {_with_interval(area, panel)}.")
        lines += [] if panel.direction == "none" else [f"{panel.direction.capitalize()} is better."]
        lines += [interval_sentence(row.by)] if area.n > 1 and not math.isnan(area.low) else []
    if row.rank:
        lines.append(f"Its rank is {row.rank} of {sum(bool(other.rank) for other in panel.rows)}.")
    return " ".join(lines)


def _verdict(row: Row, panel: Panel, word: str) -> str:
    says = {
        "better": f"it is better than {panel.reference}",
        "same": f"it is not told apart from {panel.reference}",
        "worse": f"it is worse than {panel.reference}",
        "undecided": f"there is no verdict, because {reason(row.tested)}",
        "control": "it is the reference, with which the others are compared",
        "described": "the metric describes it and does not judge it",
        "single": "there is no verdict, because there is only one sample",
        "alone": "there is no verdict, because no control was measured",
        "missing": "it is not measured yet",
        "failed": f"it failed: {row.curve.failed.removesuffix('.')}",
        "undefined": "it was measured, but the metric has no value",
    }
    return "it is not compared yet" if word == NOT_COMPARED else says[row.verdict]


def _with_interval(cell: Interval, panel: Panel, *, signed: bool = False) -> str:
    mean = number(cell.mean, panel.value_unit, signed=signed)
    if cell.n < 2 or math.isnan(cell.low):
        return mean
    low, high = (number(end, panel.value_unit, signed=signed) for end in (cell.low, cell.high))
    return f"{mean}, with a 95 % interval from {low} to {high} (n = {cell.n})"
