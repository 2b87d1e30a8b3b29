"""The report of a study: one HTML page that needs nothing else, a table and the curves as files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from efface.report import figure, words
from efface.report.gallery import Gallery, tiles
from efface.report.table import CONTROLS, Panel, Row, panels, summary
from efface.stats import Curve

MARKS = {"better": "▲", "same": "●", "worse": "▼", "control": "", "single": "○", "alone": "", "missing": "…"}


@dataclass(frozen=True)
class Facts:
    """What the page says about the study besides its numbers.

    study: the resolved study, YAML.
    seconds: time spent, by stage or metric.
    unfinished: sentences on what is missing.
    data, network: one line each; the network's with its test accuracy.
    """

    study: str
    name: str
    versions: dict[str, str]
    device: str
    seconds: dict[str, float]
    unfinished: tuple[str, ...]
    data: str
    network: str
    warnings: tuple[str, ...]


def write(folder: Path, curves: Sequence[Curve], gallery: Gallery | None, facts: Facts) -> Path:
    """Path of the `report.html` written to the folder, beside `summary.csv`, `curves.svg` and `curves.pdf`.

    Each file takes its name when it is whole, so a reader, or a killed run, never leaves half of one.
    """
    found = panels(curves)
    looks = figure.styles(curve.method for curve in curves)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "summary.csv", summary(found).to_csv(index=False).encode())
    for kind, content in figure.sheet(found, looks).items():
        _replace(folder / f"curves.{kind}", content)
    return _replace(folder / "report.html", _page(found, looks, gallery, facts).encode())


def _page(found: Sequence[Panel], looks: dict[str, figure.Style], gallery: Gallery | None, facts: Facts) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (words.number, words.plus_minus, words.between, words.percent, words.duration):
        environment.filters[function.__name__] = function
    names = figure.identifiers(found)
    firsts = [
        next(panel for panel in found if panel.metric == metric) for metric in dict.fromkeys(p.metric for p in found)
    ]
    return environment.get_template("page.html.j2").render(
        facts=facts,
        firsts=firsts,
        headline=words.headline(firsts),
        methods=_standing(firsts),
        sections=[
            [_section(panel, found, looks, names) for panel in found if panel.metric == f.metric] for f in firsts
        ],
        gallery=gallery,
        tiles=tiles(gallery) if gallery else None,
        looks=looks,
        controls=CONTROLS,
        marks=MARKS,
        verdicts=words.VERDICTS,
        leaking=[panel.metric for panel in firsts if words.leaks(panel)],
        scores=len(found) > len(firsts),
    )


def _section(
    panel: Panel, found: Sequence[Panel], looks: dict[str, figure.Style], names: dict[tuple[str, str, str], str]
) -> dict[str, object]:
    title = f"{panel.metric}: {panel.score.replace('_', ' ')} by fraction removed, a line per method"
    return {
        "panel": panel,
        "id": names[panel.metric, panel.score, panel.rows[0].method].replace("curve-", "panel-", 1),
        "about": words.about(panel),
        "findings": words.findings(panel, found),
        "svg": figure.inline(panel, looks, names, title),
    }


def _standing(firsts: Sequence[Panel]) -> list[tuple[str, list[Row | None]]]:
    rows = {row.method: [panel.row(row.method) for panel in firsts] for panel in firsts for row in panel.rows}
    references = {panel.reference for panel in firsts}

    def place(method: str) -> tuple[bool, int, float]:
        known = [row for row in rows[method] if row]
        ranks = [row.rank for row in known if row.rank]
        won = sum(row.verdict == "better" for row in known)
        return method in references, -won, sum(ranks) / len(ranks) if ranks else float("inf")

    return [(method, rows[method]) for method in sorted(rows, key=place)]


def _replace(path: Path, content: bytes) -> Path:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
