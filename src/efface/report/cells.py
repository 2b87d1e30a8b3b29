"""The cells of the table of methods and metrics: a verdict, a gain, and what a reader sees on pointing at it."""

from typing import NamedTuple

from efface.report.formats import between, number
from efface.report.stats import Interval
from efface.report.table import Panel, Row, Verdict
from efface.report.words import VERDICTS, interval_name, reason

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
    word = "not compared yet" if row.verdict == "missing" and row.area.n else VERDICTS[row.verdict]
    shown = number(gain.mean, panel.value_unit, signed=True) if gain.n else ""
    if not shown and row.area.n and row.verdict != "control":
        shown = number(row.area.mean, panel.value_unit)
    interval = between(gain).partition(" ")[2] if gain.n > 1 else ""
    return Cell(row, panel, MARKS[row.verdict], word, gain, shown, interval, _details(row, panel, gain, word))


def signed(difference: Interval, panel: Panel) -> Interval:
    """Return a difference with its sign turned if lower is better, so that + is better."""
    if panel.direction != "lower" or not difference.n:
        return difference
    return difference._replace(mean=-difference.mean, low=-difference.high, high=-difference.low)


def _details(row: Row, panel: Panel, gain: Interval, word: str) -> str:
    against = f" than {panel.reference}" if row.verdict in ("better", "worse") else ""
    lines = [f"{row.method} on {panel.metric}: {word}{against}"]
    if row.verdict == "undecided":
        lines[0] += f" ({reason(row.tested)})"
    if gain.n:
        unit = f" {panel.value_unit}" if panel.value_unit else ""
        lines.append(f"gain over {panel.reference} {between(gain)}{unit} (+ is better; 95 %, n = {gain.n})")
    if row.curve.failed:
        lines.append(f"the reason: {row.curve.failed.removesuffix('.')}")
    if row.area.n:
        whole = number(row.area.mean, panel.value_unit)
        ends = f" [{number(row.area.low)}, {number(row.area.high)}]" if row.area.n > 1 and row.by != "none" else ""
        good = "" if panel.direction == "none" else f", {panel.direction} is better"
        how = f" by {interval_name(row.by)}" if ends else ""
        lines.append(f"{panel.stands} of {panel.score.replace('_', ' ')} {whole}{ends}{how}{good}")
    if row.rank:
        lines.append(f"rank {row.rank} of {sum(bool(other.rank) for other in panel.rows)}")
    return ". ".join(lines) + "."
