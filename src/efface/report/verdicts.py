"""The verdict of each method on each metric: as a table for `verdicts.csv`, and as lines for a terminal."""

import textwrap
from collections.abc import Iterator, Sequence

import pandas as pd

from efface.report.formats import listed, plus_minus
from efface.report.noted import described, grouped, note
from efface.report.stats import Interval
from efface.report.table import Panel, Row
from efface.report.words import VERDICTS, leaks

WIDTH, MOST_ROWS, MOST_METRICS = 100, 12, 6
"""Characters of a line, rows and metrics that a terminal shows at most."""
NARROWEST = 60
"""Characters of a line that a name and a column need."""
_LONGEST_NAME = 30
_APART = "  "
_LEAK = "† The outline of the erased pixels may tell the class (mask leakage). The page says more."


def verdicts_table(panels: Sequence[Panel]) -> pd.DataFrame:
    """Return a line for each metric and method: the compared number with its interval, the verdict and the rank.

    `value` is the area, the mean or the only value of the curve, as `stands` says. `leaking` marks verdicts that mask
    leakage may explain. `note` says why a method failed, or on how many images it has no value. `rank` is empty
    where there is none.

    panels: one panel for each metric, with ranks.
    """
    columns = ["metric", "score", "method", "verdict", "rank", "value", "low", "high", "n", "unit", "stands", "better"]
    columns += ["reference", "kind", "family", "leaking", "note"]
    lines = [
        (
            *(panel.metric, panel.score, row.method, row.verdict, row.rank),
            *(row.area.mean, row.area.low, row.area.high, row.area.n, panel.value_unit, panel.stands, panel.direction),
            *(panel.reference, panel.kind, panel.family, _leaking(panel, row), note(row, panel)),
        )
        for panel in panels
        for row in panel.rows
    ]
    table = pd.DataFrame(lines, columns=columns)
    return table.assign(rank=table["rank"].astype("Int64").replace(0, pd.NA))


def _leaking(panel: Panel, row: Row) -> bool:
    return row.verdict == "worse" and leaks(panel)


def printed(
    table: pd.DataFrame,
    metrics: Sequence[str] = (),
    *,
    width: int = WIDTH,
    most_rows: int | None = MOST_ROWS,
    most_metrics: int | None = MOST_METRICS,
) -> list[str]:
    """Return a `verdicts_table` as lines of at most `width` characters, in the words of the page; none if it is empty.

    Rows are methods, best first. The row that the others are compared with comes last. At most `most_rows` rows and
    `most_metrics` metrics are shown, and the others are counted. Columns that do not fit stand below.

    metrics: metrics of the study to show; all by default. On a page of several networks, `roar` is each of its methods.
    width: characters of a line, at least `NARROWEST`. most_rows, most_metrics: None shows all.
    """
    wanted = [name for name in dict.fromkeys(table.metric) if not metrics or name.partition(" · ")[0] in metrics]
    asked = table[table.metric.isin(wanted)]
    of_network = (asked.kind == "method") & (asked.family == "network")
    lines = [*_of_methods(asked[~of_network], width, most_rows, most_metrics), *_of_network(asked[of_network])]
    return [line if len(line) <= width else f"{line[: width - 3]}..." for line in lines]


def _of_methods(asked: pd.DataFrame, width: int, most_rows: int | None, most_metrics: int | None) -> list[str]:
    metrics = list(dict.fromkeys(asked.metric))
    few = asked[asked.metric.isin(metrics[:most_metrics])]
    if few.empty:
        return []
    methods = _best_first(few)
    rows = _chosen(methods, set(few.reference), most_rows or len(methods))
    kind = str(few.kind.iloc[0])
    columns = [_column(few[few.metric == metric], rows) for metric in metrics[:most_metrics]]
    blocks = _blocks([kind, "", *map(_short, rows)], columns, width)
    found = grouped(zip(few.method, few.metric, few.note, strict=True))
    cautions = [line for text in found for line in textwrap.wrap(f"Caution: {text}", width)]
    lines = ["", *cautions] if cautions else []
    lines += [line.rstrip() for block in blocks for line in ("", *block)]
    for count, what in ((len(methods) - len(rows), kind), (len(metrics) - len(columns), "metric")):
        if count > 0:
            lines.append(f"{count} more {what}{'s' * (count > 1)}: see the page")
    return [*lines, *_notes(few, width)]


def _of_network(asked: pd.DataFrame) -> list[str]:
    """Return a line for each metric that judges the network and not a method."""
    return [
        f"{metric} of the {method}: {plus_minus(Interval(value, float('nan'), low, high, n), unit)} "
        f"({stands} of {score.replace('_', ' ')}, {_good(better)})"
        for metric, method, value, low, high, n, unit, stands, score, better in zip(
            *(asked[name] for name in ("metric", "method", "value", "low", "high", "n", "unit", "stands", "score")),
            asked.better,
            strict=True,
        )
    ]


def _best_first(table: pd.DataFrame) -> list[str]:
    """Return the methods in the order of the page's verdicts: most often better, then by mean rank; references last."""
    references = set(table.reference)

    def place(method: str) -> tuple[bool, int, float]:
        own = table[table.method == method]
        ranks = own["rank"][own["rank"] > 0]
        return method in references, -int((own.verdict == "better").sum()), ranks.mean() if len(ranks) else float("inf")

    return sorted(dict.fromkeys(table.method), key=place)


def _chosen(methods: list[str], references: set[str], most: int) -> list[str]:
    """Return the first methods; a reference among the others takes the last place."""
    if len(methods) <= most or methods[-1] not in references:
        return methods[:most]
    return [*methods[: most - 1], methods[-1]]


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."


def _good(better: str) -> str:
    return "describes" if better == "none" else f"{better} is better"


def _column(of_metric: pd.DataFrame, rows: Sequence[str]) -> list[str]:
    """Return the name of the metric, what its number is, and the cells of these rows."""
    first = of_metric.iloc[0]
    good = _good(first.better)
    numbers, verdicts = dict[str, str](), dict[str, str]()
    fields = ("method", "value", "low", "high", "n", "verdict", "leaking")
    for method, value, low, high, n, verdict, leaking in zip(*(of_metric[name] for name in fields), strict=True):
        numbers[method] = plus_minus(Interval(value, float("nan"), low, high, n), first.unit, nothing="")
        word = "not compared yet" if verdict == "missing" and n else VERDICTS[verdict]
        verdicts[method] = f"{word}{'†' * leaking}"
    size = max((len(numbers[method]) for method in rows if method in numbers), default=0)
    cells = [
        f"{numbers[method].ljust(size)} {verdicts[method]}".strip() if method in numbers else "not in this metric"
        for method in rows
    ]
    return [str(first.metric), f"{str(first.score).replace('_', ' ')}, {good}", *cells]


def _blocks(names: Sequence[str], columns: Sequence[Sequence[str]], most: int) -> Iterator[list[str]]:
    """Yield the lines of the columns that fit beside the names, then those of the next columns, and so on."""
    left = max(map(len, names))
    widths = [max(map(len, column)) for column in columns]
    at = 0
    while at < len(columns):
        end, width = at + 1, left + len(_APART) + widths[at]
        while end < len(columns) and width + len(_APART) + widths[end] <= most:
            width += len(_APART) + widths[end]
            end += 1
        of_block = [names, *columns[at:end]]
        sizes = [left, *widths[at:end]]
        yield [
            _APART.join(cell.ljust(size) for cell, size in zip(cells, sizes, strict=True))
            for cells in zip(*of_block, strict=True)
        ]
        at = end


def _notes(table: pd.DataFrame, width: int) -> list[str]:
    """Return what the numbers are, what they are compared with, and the caution about leakage."""
    by_kind: dict[str, list[str]] = {}
    for metric, stands in dict(zip(table.metric, table.stands, strict=True)).items():
        by_kind.setdefault(stands, []).append(metric)
    numbers = ", ".join(f"the {stands} of {listed(metrics)}" for stands, metrics in by_kind.items())
    against = [name for name in dict.fromkeys(table.reference) if name]
    compared = f" Compared with {listed(against)}." if against else ""
    notes = [f"Numbers: {numbers}, with 95 % intervals.{compared}", *([_LEAK] if table.leaking.any() else [])]
    notes += described(list(dict.fromkeys(table.metric[table.better == "none"])))
    return [line for note in notes for line in textwrap.wrap(note, width)]
