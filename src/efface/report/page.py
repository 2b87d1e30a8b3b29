"""The report of a study: one HTML page that needs no network, tables as CSV files, and the curves as figures."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2

from efface.report import (
    answer,
    between,
    cautions,
    decided,
    figure,
    formats,
    frames,
    glossary,
    noted,
    paper,
    told,
    verdicts,
    words,
)
from efface.report.cells import Cell, cell
from efface.report.facts import Facts, Origin
from efface.report.gallery import Gallery, uri
from efface.report.looks import Style, identifiers, styles
from efface.report.panels import panels
from efface.report.pictured import Pictured, kept_pictures
from efface.report.script_data import curve_data, image_data
from efface.report.stats import Curve
from efface.report.table import ALPHA, FAMILIES, Kind, Panel
from efface.store.atomic import atomic_write

MANY = 6
"""Largest number of metrics without an index. With more, the table of all methods has marks instead of words."""
FILES = (
    *(f"{name}.csv" for name in ("summary", "verdicts", "comparisons", "agreement", "table")),
    *("table.md", "table.tex", "curves.pdf"),
)
"""Files beside the page that it links to."""


def write(
    folder: Path,
    curves: Sequence[Curve],
    gallery: Gallery | Pictured | None,
    facts: Facts,
    *,
    references: Sequence[str] = (),
    network: str = "",
    tabled: Sequence[Curve] = (),
) -> Path:
    """Write the report with its tables and figures, and return the path of `report.html`.

    `summary.csv` has every number. `verdicts.csv` has the verdict on each method. `comparisons.csv` has every two
    methods by the first score of each metric. `agreement.csv` has every two metrics. `curves.svg` and `curves.pdf` show
    the first score of each metric. The folder `images` has the pictures of large images in full size. For papers there
    are `table.csv`, `table.md`, `table.tex`, `results.parquet` (with pyarrow), and a figure of each metric in
    `figures`. Files are written atomically; a killed run never leaves a partial file.

    folder: folder of the report.
    curves: curves of all methods, metrics and scores.
    gallery: example images with their maps, the pictures of an earlier page, or None.
    facts: facts about the study.
    references: names of methods; the others are compared with the first of these that a metric has.
    network: name of the network that the others are compared with. It is set for a page whose curves belong to networks
        and not to methods.
    tabled: curves that appear only in `summary.csv`.
    """
    references = (network,) if network else references
    all_panels = panels(curves, references, kind="network" if network else "method")
    metrics = dict.fromkeys(panel.metric for panel in all_panels)
    firsts = [next(panel for panel in all_panels if panel.metric == metric) for metric in metrics]
    pairs = between.pairs([panel for panel in firsts if network or panel.family != "network"])
    ranked = [between.with_ranks(compared) for compared in pairs]
    in_rounds = decided.rounds(pairs)
    agreements = between.agreements([] if network or in_rounds else ranked)
    facts = replace(
        facts,
        warnings=(
            *noted.notes(firsts),
            *facts.warnings,
            *(sentence for panel in firsts for sentence in words.gap_sentences(panel)),
        ),
    )
    controls = {row.method for panel in all_panels for row in panel.rows if row.is_control}
    looks = styles((row.method for panel in all_panels for row in panel.rows), () if network else references)
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in (
        ("summary", frames.summary_table((*panels(tabled, references), *all_panels), facts.how)),
        ("comparisons", frames.comparisons_table(pairs)),
        ("agreement", frames.agreement_table(agreements)),
        ("verdicts", verdicts.verdicts_table(_every_first(firsts, ranked))),
    ):
        _replace(folder / f"{name}.csv", frame.to_csv(index=False).encode())
    for suffix, content in figure.sheet(firsts, looks).items():
        _replace(folder / f"curves.{suffix}", content)
    kind: Kind = "network" if network else "method"
    bests = answer.bests(pairs)
    standing = _standing(ranked)
    for name, content in paper.files(all_panels, [method for method, _ in standing], ranked, bests, looks).items():
        (folder / name).parent.mkdir(exist_ok=True)
        _replace(folder / name, content)
    degenerate = cautions.cautions(facts.degenerate, controls)
    warnings = cautions.first_cautions(facts, bests, degenerate)
    page = _template().render(
        facts=_with_tables(facts),
        made=told.made(facts),
        compared_sentence=told.compared(firsts, facts, kind, controls),
        warnings=warnings,
        told_first=max(1, len(cautions.of_study(facts))),
        cautions={name: lines for name, lines in degenerate.items() if cautions.of_maps(name, lines) not in warnings},
        degenerate_said=bool(degenerate),
        shares=cautions.SHARES,
        picture=uri(facts.picture) if facts.picture else None,
        looks=looks,
        controls=controls,
        verdicts=words.VERDICTS,
        reference=network or next((panel.reference for panel in all_panels if panel.reference), "random"),
        kind=kind,
        rounds=in_rounds,
        rounds_sentences=decided.rounds_sentences(in_rounds, _level(all_panels), facts.passes),
        glossary=glossary.GLOSSARY,
        bests=bests,
        against=answer.against_own(ranked, next((panel.reference for panel in ranked), "")) if not network else [],
        overall=answer.overall(bests),
        overall_sentences=answer.overall_sentences(answer.overall(bests), kind),
        methods=standing,
        **_metrics(all_panels, firsts, ranked, looks, facts),
        **_between(pairs, agreements),
        **_images(folder, gallery, all_panels, looks, controls),
    )
    return _replace(folder / "report.html", page.encode())


def _with_tables(facts: Facts) -> Facts:
    """Return the facts with the addresses of the tables beside the page before the other files."""
    origin: Origin = replace(facts.origin, tables=(*((name, name) for name in FILES), *facts.origin.tables))
    return replace(facts, origin=origin)


@functools.cache  # compiling it takes as long as drawing two figures
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    used = (
        formats.number,
        formats.plus_minus,
        formats.between,
        formats.percent,
        formats.point,
        formats.duration,
        formats.two_digits,
        words.reason,
        words.interval_name,
        formats.listed,
        formats.p_value,
        formats.percent_of,
    )
    for function in (
        *used,
        cautions.share,
        glossary.anchor,
        answer.is_ahead,
        answer.against_chance,
        between.pairs_of_best,
    ):
        environment.filters[function.__name__] = function
    return environment.get_template("page.html.j2")


def _metrics(
    all_panels: Sequence[Panel],
    firsts: Sequence[Panel],
    ranked: Sequence[Panel],
    looks: dict[str, Style],
    facts: Facts,
) -> dict[str, object]:
    """Return the content of the page for each metric, and the tables of the `ranked` metrics, which come first."""
    names = identifiers(all_panels)
    drawn: dict[str, tuple[Panel, figure.Drawn]] = {}
    sections = [
        [_section(panel, all_panels, looks, names, drawn) for panel in all_panels if panel.metric == f.metric]
        for f in firsts
    ]
    families = [
        (
            FAMILIES.get(family, family.replace("_", " ").capitalize()),
            [parts for parts in sections if parts[0]["panel"].family == family],
        )
        for family in dict.fromkeys(panel.family for panel in firsts)
    ]
    return {
        "firsts": ranked,
        "number_of": {metric: n for n, metric in enumerate(dict.fromkeys(p.metric for p in (*ranked, *firsts)), 1)},
        "headline": [
            *words.headline(ranked),
            *noted.described([panel.metric for panel in ranked if panel.direction == "none"]),
        ],
        "families": families,
        "many": len(ranked) > MANY,
        "leaking": [panel.metric for panel in ranked if words.leaks(panel)],
        "gaining": [panel.metric for panel in ranked if words.may_gain(panel, ranked)],
        "scores": len(all_panels) > len(firsts),
        "how": {name: told.how(settings) for name, settings in facts.how.items()},
        "curve_data": curve_data(drawn),
    }


def _level(all_panels: Sequence[Panel]) -> float:
    """Return the level of the decisions of a study that measures in rounds, or that of all verdicts."""
    looks = (row.curve.looks for panel in all_panels for row in panel.rows)
    return next((look.level for look in looks if look is not None), ALPHA)


def _between(pairs: Sequence[between.Pairs], agreements: between.Agreements) -> dict[str, object]:
    return {
        "pairs": [compared for compared in pairs if compared.found],
        "pairs_sentence": between.pairs_sentence,
        "agreements": agreements,
        "agreement_sentences": between.agreement_sentences(agreements),
        "alpha": ALPHA,
    }


def _images(
    folder: Path,
    gallery: Gallery | Pictured | None,
    all_panels: Sequence[Panel],
    looks: Mapping[str, Style],
    controls: set[str],
) -> dict[str, object]:
    """Return the content of the page that shows images, and write the pictures that lie beside it."""
    shown = kept_pictures(folder, gallery)
    if shown is None:
        return {"gallery": None}
    data = image_data(shown, all_panels, looks, controls)
    return {"gallery": shown, "chosen_sentence": told.chosen(shown), "image_data": data}


def _every_first(firsts: Sequence[Panel], ranked: Sequence[Panel]) -> list[Panel]:
    """Return the first panel of each metric, with ranks where methods are ranked."""
    with_ranks = {panel.metric: panel for panel in ranked}
    return [with_ranks.get(panel.metric, panel) for panel in firsts]


def _section(
    panel: Panel,
    all_panels: Sequence[Panel],
    looks: dict[str, Style],
    names: dict[tuple[str, str, str], str],
    drawn: dict[str, tuple[Panel, figure.Drawn]],
) -> dict[str, Any]:
    """Return a part of the page. drawn: figures whose values a reader can point at; this one is added."""
    by = "a dot per method" if panel.stands == "value" else f"by {panel.axis}, a line per method"
    title = f"{panel.metric}: {panel.score.replace('_', ' ')}, {by}"
    name = names[panel.metric, panel.score, panel.rows[0].method].replace("curve-", "panel-", 1)
    made = figure.inline(panel, looks, names, title)
    if panel.stands != "value":
        drawn[name] = panel, made
    return {
        "panel": panel,
        "id": name,
        "about": words.about(panel),
        "findings": words.findings(panel, all_panels),
        "svg": made.svg,
        "hover": name in drawn,
    }


def _standing(firsts: Sequence[Panel]) -> list[tuple[str, list[Cell | None]]]:
    """Return the cells of each method, the method with the most wins first and the references last."""
    rows = {row.method: [panel.row(row.method) for panel in firsts] for panel in firsts for row in panel.rows}
    references = {panel.reference for panel in firsts}

    def place(method: str) -> tuple[bool, int, float]:
        known = [row for row in rows[method] if row]
        ranks = [row.rank for row in known if row.rank]
        won = sum(row.verdict == "better" for row in known)
        return method in references, -won, sum(ranks) / len(ranks) if ranks else float("inf")

    return [
        (method, [cell(row, panel) if row else None for row, panel in zip(rows[method], firsts, strict=True)])
        for method in sorted(rows, key=place)
    ]


def _replace(path: Path, content: bytes) -> Path:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    return path
