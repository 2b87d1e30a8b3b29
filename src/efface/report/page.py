"""The report of a study: one HTML page that needs no network, tables as CSV files, and the curves as figures."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2

from efface.report import (
    answer,
    beside,
    between,
    between_settings,
    cautions,
    cells,
    decided,
    figure,
    formats,
    glossary,
    headline,
    noted,
    outline,
    told,
    words,
)
from efface.report.facts import Facts
from efface.report.gallery import Gallery, uri
from efface.report.looks import Style, identifiers, styles
from efface.report.panels import panels
from efface.report.pictured import Pictured, kept_pictures
from efface.report.script_data import curve_data, image_data
from efface.report.stats import Curve
from efface.report.table import ALPHA, FAMILIES, Kind, Panel

MANY = 6
"""Largest number of metrics without an index. With more, the table of all methods has marks instead of words."""
LONG = 90
"""Largest number of letters of all metrics' names in the links at the top. If there are more, families are linked."""


def write(
    folder: Path,
    curves: Sequence[Curve],
    gallery: Gallery | Pictured | None,
    facts: Facts,
    *,
    references: Sequence[str] = (),
    network: str = "",
    tabled: Sequence[Curve] = (),
    methods: Sequence[str] = (),
) -> Path:
    """Write the report with its tables and figures, and return the path of `report.html`.

    `summary.csv` has every number. `verdicts.csv` has the verdict on each method. `comparisons.csv` has every two
    methods by the first score of each metric. `agreement.csv` has every two metrics. `settings.csv` has
    every two settings of a metric that the study measures at several, and `outline.csv` what retrained metrics owe to
    the outline of the removed units. `curves.svg` and `curves.pdf` show
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
    methods: names of all rows in the order of the study, which gives each its colour. Other rows follow.
    """
    references = (network,) if network else references
    curves, twins = [each for each in curves if not each.twin_of], [each for each in curves if each.twin_of]
    all_panels = panels(curves, references, kind="network" if network else "method")
    metrics = dict.fromkeys(panel.metric for panel in all_panels)
    firsts = [next(panel for panel in all_panels if panel.metric == metric) for metric in metrics]
    pairs = between.pairs([panel for panel in firsts if network or panel.family != "network"])
    ranked = [between.with_ranks(compared) for compared in pairs]
    in_rounds = decided.rounds(pairs)
    agreements = between.agreements([] if network or in_rounds else ranked)
    shares = outline.outline_shares(firsts, curves, twins, facts.outlines)
    settings = between_settings.between_settings(firsts, {} if network else facts.setting_of)
    facts = replace(
        facts,
        warnings=(
            *noted.notes(firsts),
            *(sentence for one in shares for sentence in outline.sentences(one)),
            *between_settings.settings_cautions(settings),
            *facts.warnings,
            *(sentence for panel in firsts for sentence in words.gap_sentences(panel)),
        ),
    )
    controls = {row.method for panel in all_panels for row in panel.rows if row.is_control}
    looks = styles((*methods, *(curve.draw_of or curve.method for curve in curves)), controls)
    kind: Kind = "network" if network else "method"
    bests = answer.bests(pairs)
    standing = cells.standing(ranked)
    made = beside.contents(
        *(all_panels, firsts, ranked, [method for method, _ in standing], bests, pairs, agreements, looks, facts),
        *(panels((*tabled, *twins), references), settings, shares),
    )
    beside.write(folder, made)
    degenerate = cautions.cautions(facts.degenerate, controls | facts.controls)
    warnings = cautions.first_cautions(facts, bests, degenerate)
    page = _template().render(
        facts=facts,
        files=beside.links(folder, made if all_panels else {}, facts),
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
        overall_sentences=answer.overall_sentences(bests, kind),
        controls_sentences=answer.controls_sentences(bests),
        methods=standing,
        **_metrics(all_panels, firsts, ranked, looks, facts),
        **_between(pairs, agreements),
        outlined=shares,
        by_outline={one.panel.metric: {each.row.method for each in one.shares if each.by_outline} for one in shares},
        settings=settings,
        settings_sentences=between_settings.sentences,
        **_images(folder, gallery, all_panels, looks, controls),
    )
    beside.write(folder, {"report.html": page.encode()})
    return folder / "report.html"


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
        words.intervals_sentences,
        formats.listed,
        formats.breakable,
        formats.p_value,
        formats.percent_of,
    )
    for function in (
        *used,
        cautions.share,
        glossary.anchor,
        glossary.linked,
        cells.signed,
        answer.is_ahead,
        answer.against_chance,
        between.pairs_of_best,
        between.tau_tip,
        between.alpha_tip,
    ):
        environment.filters[function.__name__] = function
    return environment.get_template("page.html.j2")


def _metrics(
    all_panels: Sequence[Panel],
    firsts: Sequence[Panel],
    ranked: Sequence[Panel],
    looks: Mapping[str, Style],
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
            *headline.headline(ranked),
            *noted.described([panel.metric for panel in ranked if panel.direction == "none"]),
        ],
        "families": families,
        "many": len(ranked) > MANY,
        "short_links": len(ranked) > MANY or sum(len(panel.metric) for panel in firsts) > LONG,
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


def _section(
    panel: Panel,
    all_panels: Sequence[Panel],
    looks: Mapping[str, Style],
    names: dict[tuple[str, str, str], str],
    drawn: dict[str, tuple[Panel, figure.Drawn]],
) -> dict[str, Any]:
    """Return a part of the page. drawn: figures whose values a reader can point at; this one is added."""
    score, kind = panel.score.replace("_", " "), panel.kind
    by = f"a dot for each {kind}" if panel.stands == "value" else f"a line for each {kind} by the {panel.axis}"
    title = f"This figure shows the {score} on {panel.metric}, with {by}."
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
