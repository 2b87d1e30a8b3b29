"""The tables of a page in the forms that papers need."""

import importlib.util
import io
import math
import re
from collections.abc import Mapping, Sequence
from itertools import chain, count
from typing import NamedTuple

import pandas as pd

from efface.report.answer import Best
from efface.report.cells import MARKS, signed
from efface.report.figure import column
from efface.report.formats import number
from efface.report.looks import Style
from efface.report.stats import Interval
from efface.report.table import Panel, Row
from efface.report.words import VERDICTS

_LETTERS = str.maketrans(
    {
        "_": r"\_",
        "&": r"\&",
        "%": r"\%",
        "#": r"\#",
        "$": r"\$",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
    }
)
_MARKDOWN = str.maketrans({"_": r"\_", "|": r"\|", "*": r"\*", "\\": r"\\", "`": r"\`", "<": "&lt;"})
_SIGNS = {
    "better": r"$\blacktriangle$",
    "worse": r"$\blacktriangledown$",
    "same": r"$\bullet$",
    "undecided": r"$\circ$",
}


class Number(NamedTuple):
    """A line of `results.parquet`: one number with its interval.

    kind: `point`: the value at a point `at` of the axis. `summary`: the number that stands for the curve. `gain`: the
    difference to the reference, signed so that + is better; it has `p`, corrected for all verdicts, and `verdict`.
    """

    metric: str
    score: str
    method: str
    kind: str
    at: float
    value: float
    low: float
    high: float
    n: int
    over: str
    interval: str
    p: float
    verdict: str
    better: str
    unit: str
    family: str
    reference: str


def numbers(panels: Sequence[Panel]) -> pd.DataFrame:
    """Return a line for each number of the panels, see `Number`."""
    lines: list[Number] = []
    for panel in panels:
        for row in panel.rows:
            if panel.stands != "value":
                lines += [
                    _line(panel, row, "point", at, cell)
                    for at, cell in zip(panel.fractions, row.intervals, strict=True)
                ]
            lines.append(_line(panel, row, "summary", float("nan"), row.area))
            if row.difference.n:
                lines.append(_line(panel, row, "gain", float("nan"), signed(row.difference, panel)))
    return pd.DataFrame(lines, columns=Number._fields)


def _line(panel: Panel, row: Row, kind: str, at: float, cell: Interval) -> Number:
    is_gain = kind == "gain"
    return Number(
        *(panel.metric, panel.score, row.method, kind, at, cell.mean, cell.low, cell.high, cell.n, panel.over),
        row.tested if is_gain else row.by,
        row.p if is_gain else float("nan"),
        row.verdict if is_gain else "",
        "higher" if is_gain else panel.direction,
        *(panel.value_unit, panel.family, panel.reference),
    )


def parquet(table: pd.DataFrame) -> bytes | None:
    """Return a table as the bytes of a Parquet file, or None without pyarrow (the extra `parquet`)."""
    if importlib.util.find_spec("pyarrow") is None:
        return None
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False, engine="pyarrow")
    return buffer.getvalue()


def files(
    every: Sequence[Panel],
    methods: Sequence[str],
    panels: Sequence[Panel],
    bests: Sequence[Best],
    looks: Mapping[str, Style],
) -> dict[str, bytes]:
    """Return the table of methods and metrics in three forms, all numbers as Parquet, and a figure of each metric.

    every: all panels. methods: the rows, in their order. panels: the first panel of each metric, with ranks.
    """
    made = {f"table.{suffix}": text.encode() for suffix, text in tables(methods, panels, bests)._asdict().items()}
    if (whole := parquet(numbers(every))) is not None:
        made["results.parquet"] = whole
    for panel, name in zip(panels, file_names([panel.metric for panel in panels]), strict=True):
        made[f"figures/{name}.pdf"] = column(panel, looks)
    return made


def file_names(metrics: Sequence[str]) -> list[str]:
    """Return a file name for each metric, without suffix. Signs that a file system may not have are replaced."""
    names: list[str] = []
    for metric in metrics:
        slug = re.sub(r"[^a-zA-Z0-9_.-]+", "-", metric).strip("-.") or "metric"
        names.append(next(each for each in chain([slug], (f"{slug}-{i}" for i in count(2))) if each not in names))
    return names


class Tables(NamedTuple):
    """The table of methods and metrics: as CSV, as Markdown and as LaTeX."""

    csv: str
    md: str
    tex: str


def tables(methods: Sequence[str], panels: Sequence[Panel], bests: Sequence[Best]) -> Tables:
    """Return the table of methods and metrics. The best methods, and all that are not told apart from them, are bold.

    methods: the rows, in their order. panels: the columns, with ranks.
    """
    first = {best.panel.metric: set(best.first) for best in bests}
    return Tables(_csv(methods, panels), _markdown(methods, panels, first), _latex(methods, panels, first))


def _csv(methods: Sequence[str], panels: Sequence[Panel]) -> str:
    columns: dict[str, list[object]] = {"method": list(methods)}
    for panel in panels:
        rows = [panel.row(name) for name in methods]
        columns[panel.metric] = [row.area.mean if row else "" for row in rows]
        columns[f"{panel.metric} low"] = [row.area.low if row else "" for row in rows]
        columns[f"{panel.metric} high"] = [row.area.high if row else "" for row in rows]
        columns[f"{panel.metric} verdict"] = [row.verdict if row else "" for row in rows]
        columns[f"{panel.metric} rank"] = [(row.rank or "") if row else "" for row in rows]
    return pd.DataFrame(columns).to_csv(index=False)


def _markdown(methods: Sequence[str], panels: Sequence[Panel], first: Mapping[str, set[str]]) -> str:
    def cell(row: Row | None, panel: Panel) -> str:
        if row is None or row.curve.failed or not row.area.n:
            return VERDICTS["failed"] if row is not None and row.curve.failed else ""
        text = _plus_minus(row.area, "±")
        text = f"**{text}**" if row.method in first.get(panel.metric, ()) else text
        return f"{text} {MARKS[row.verdict]}".strip()

    escaped = [name.translate(_MARKDOWN) for name in methods]
    heads = [f"{panel.metric.translate(_MARKDOWN)} {_arrow(panel, '↑', '↓')}".strip() for panel in panels]
    lines = [f"| method | {' | '.join(heads)} |", f"|---|{'---|' * len(panels)}"]
    lines += [
        f"| {text} | {' | '.join(cell(panel.row(name), panel) for panel in panels)} |"
        for name, text in zip(methods, escaped, strict=True)
    ]
    return "\n".join([*lines, "", _note(panels, "▲", "▼", "●")]) + "\n"


def _latex(methods: Sequence[str], panels: Sequence[Panel], first: Mapping[str, set[str]]) -> str:
    def cell(row: Row | None, panel: Panel) -> str:
        if row is None or row.curve.failed or not row.area.n:
            return VERDICTS["failed"] if row is not None and row.curve.failed else "--"
        text = _plus_minus(row.area, r"\pm").replace("\N{MINUS SIGN}", "-").replace("%", r"\%")
        text = f"$\\mathbf{{{text}}}$" if row.method in first.get(panel.metric, ()) else f"${text}$"
        return f"{text} {_SIGNS.get(row.verdict, '')}".strip()

    up, down = r"$\uparrow$", r"$\downarrow$"
    heads = [f"{panel.metric.translate(_LETTERS)} {_arrow(panel, up, down)}".strip() for panel in panels]
    lines = [
        "% Needs the packages booktabs and amssymb.",
        *(f"% {line}" for line in _note(panels, "black triangle up", "black triangle down", "bullet").split("\n")),
        f"\\begin{{tabular}}{{l{'l' * len(panels)}}}",
        r"\toprule",
        " & ".join(["Method", *heads]) + r" \\",
        r"\midrule",
    ]
    lines += [
        " & ".join([name.translate(_LETTERS), *(cell(panel.row(name), panel) for panel in panels)]) + r" \\"
        for name in methods
    ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _arrow(panel: Panel, up: str, down: str) -> str:
    return {"higher": up, "lower": down}.get(panel.direction, "")


def _plus_minus(cell: Interval, sign: str) -> str:
    """Return a mean with the larger half of its interval."""
    half = max(cell.mean - cell.low, cell.high - cell.mean) if cell.n > 1 else float("nan")
    return number(cell.mean) if math.isnan(half) else f"{number(cell.mean)} {sign} {number(half)}"


def _note(panels: Sequence[Panel], up: str, down: str, same: str) -> str:
    reference = next((panel.reference for panel in panels if panel.reference), "")
    against = f" {up}: better than {reference}, {down}: worse, {same}: no different." if reference else ""
    return (
        "Area, mean or value of each metric by its first score, with the larger half of its 95 % interval. Bold: the "
        f"best, and all that are not told apart from it.{against} Verdicts and pairs are corrected for all comparisons."
    )
