"""What stands above the numbers: methods that failed, images without a value, and metrics that only describe."""

from collections.abc import Iterable, Sequence

from efface.report.formats import listed
from efface.report.table import Panel, Row


def note(row: Row, panel: Panel) -> str:
    """Return what a reader must know of a row before its numbers; "" if there is nothing."""
    if row.curve.failed:
        return f"failed: {row.curve.failed}"
    if absent := images_without(row, panel):
        some = "any" if absent == len(row.curve.values) else f"{absent}"
        left_out = ", which are left out" if row.area.n else ""
        return f"had no value on {some} of the {len(row.curve.values)} images{left_out}"
    return ""


def images_without(row: Row, panel: Panel) -> int:
    """Return on how many images a row has no value; 0 as long as the panel is not measured to the end."""
    if panel.sample != "images" or panel.unfinished or row.curve.failed:
        return 0
    return len(row.curve.values) - row.area.n


def notes(panels: Sequence[Panel]) -> list[str]:
    """Return the notes on all rows. panels: one for each metric."""
    return grouped((row.method, panel.metric, note(row, panel)) for panel in panels for row in panel.rows)


def grouped(found: Iterable[tuple[str, str, str]]) -> list[str]:
    """Return notes as sentences, those of several methods and metrics once. found: method, metric and note."""
    metrics: dict[tuple[str, str], list[str]] = {}
    for method, metric, said in found:
        if said:
            metrics.setdefault((said, method), []).append(metric)
    methods: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (said, method), names in metrics.items():
        methods.setdefault((said, tuple(names)), []).append(method)
    return [f"On {listed(names)}, {listed(of)} {said.removesuffix('.')}." for (said, names), of in methods.items()]


def described(metrics: Sequence[str]) -> list[str]:
    """Return a sentence on the metrics that have no better direction. metrics: their names."""
    if not metrics:
        return []
    describe = "describes" if len(metrics) == 1 else "describe"
    return [f"{listed(metrics)} only {describe} the maps: no direction is better, so no method is judged there."]
