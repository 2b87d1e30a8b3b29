"""The report of a study: one self-contained HTML page, tables as CSV files, and the curves as figures."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from efface.report import between, cautions, decided, figure, frames, verdicts, words
from efface.report.gallery import Gallery, tiles, uri
from efface.report.panels import panels
from efface.report.stats import Curve
from efface.report.table import ALPHA, FAMILIES, HOW, Panel, Row
from efface.store.atomic import atomic_write

MARKS = {
    "better": "▲",
    "same": "●",
    "worse": "▼",
    "undecided": "○",
    "control": "",
    "described": "",
    "single": "○",
    "alone": "",
    "missing": "…",
    "undefined": "∅",
}
MANY = 6
"""Largest number of metrics without an index. With more, the first table has marks instead of words."""
_HOW = {"unit": "unit", "explain": "class explained", "imputer": "fill", "ties": "ties", "count": "count"}


class Cost(NamedTuple):
    """Time that the probes of a metric took. A probe that two metrics share counts for both.

    seconds: seconds for all methods.
    per_image: seconds for each test image; NaN if networks are trained.
    per_map: seconds for each test image and map; NaN if networks are trained.
    """

    seconds: float
    per_image: float
    per_map: float


@dataclass(frozen=True)
class Facts:
    """Facts about the study on the page, besides its numbers.

    study: the resolved study, as YAML.
    name: name of the study.
    versions: version of each package.
    device: device of the run.
    seconds: time spent, by stage or probe.
    unfinished: sentences on the missing work.
    data: one line on the data set.
    network: one line on the network, with its test accuracy.
    warnings: further cautions, as sentences.
    how: for each metric, the settings of its numbers: `unit`, `explain`, `imputer`, `ties`, `count`.
    degenerate: for each method, mean shares of degenerate maps, see `cautions`; empty if they were not computed.
    costs: time of each metric, without the extraction of maps.
    layers: for each method that looks at layers, which these are and how they are laid out.
    claims: the claims of the study, each with `says`, `source`, `published`, `message` and `verdict`.
    picture: bytes of the PNG file of stage visualize.
    passes: of a study that measures in rounds, the share of the planned forward passes that it used; NaN if unknown.
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
    how: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    degenerate: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    layers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    claims: Sequence[Any] = ()
    picture: bytes | None = field(default=None, repr=False)
    passes: float = float("nan")


def write(
    folder: Path,
    curves: Sequence[Curve],
    gallery: Gallery | None,
    facts: Facts,
    *,
    references: Sequence[str] = (),
    network: str = "",
    tabled: Sequence[Curve] = (),
) -> Path:
    """Write the report with its tables and figures, and return the path of `report.html`.

    `summary.csv` has every number. `comparisons.csv` has every two methods by the first score of each metric,
    `verdicts.csv` the verdict on each method. `agreement.csv` has every two metrics. `curves.svg` and `curves.pdf` show
    the first score of each metric. Files are written atomically; a killed run never leaves a partial file.

    folder: folder of the report.
    curves: curves of all methods, metrics and scores.
    gallery: example images with their maps, or None.
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
        facts, warnings=(*facts.warnings, *(sentence for panel in firsts for sentence in words.gap_sentences(panel)))
    )
    controls = {row.method for panel in all_panels for row in panel.rows if row.is_control}
    looks = figure.styles((row.method for panel in all_panels for row in panel.rows), () if network else references)
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in (
        ("summary", frames.summary_table((*panels(tabled, references), *all_panels), facts.how)),
        ("comparisons", frames.comparisons_table(pairs)),
        ("agreement", frames.agreement_table(agreements)),
        ("verdicts", verdicts.verdicts_table(_every_first(firsts, ranked))),
    ):
        _replace(folder / f"{name}.csv", frame.to_csv(index=False).encode())
    for kind, content in figure.sheet(firsts, looks).items():
        _replace(folder / f"curves.{kind}", content)
    shown = _metrics(all_panels, firsts, ranked, looks, facts) | _between(pairs, agreements)
    page = _template().render(
        facts=facts,
        cautions=cautions.cautions(facts.degenerate, controls),
        shares=cautions.SHARES,
        gallery=gallery,
        tiles=tiles(gallery) if gallery else None,
        picture=uri(facts.picture) if facts.picture else None,
        looks=looks,
        controls=controls,
        marks=MARKS,
        verdicts=words.VERDICTS,
        reference=network or next((panel.reference for panel in all_panels if panel.reference), "random"),
        kind="network" if network else "method",
        rounds=in_rounds,
        rounds_sentences=decided.rounds_sentences(in_rounds, _level(all_panels), facts.passes),
        **shown,
    )
    return _replace(folder / "report.html", page.encode())


@functools.cache  # compiling it takes as long as drawing two figures
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = (
        words.number,
        words.plus_minus,
        words.between,
        words.percent,
        words.point,
        words.duration,
        words.two_digits,
        words.reason,
        words.interval_name,
    )
    for function in (*formats, cautions.share):
        environment.filters[function.__name__] = function
    return environment.get_template("page.html.j2")


def _metrics(
    all_panels: Sequence[Panel],
    firsts: Sequence[Panel],
    ranked: Sequence[Panel],
    looks: dict[str, figure.Style],
    facts: Facts,
) -> dict[str, object]:
    """Return the content of the page for each metric, and the tables of the `ranked` metrics, which come first."""
    names = figure.identifiers(all_panels)
    sections = [
        [_section(panel, all_panels, looks, names) for panel in all_panels if panel.metric == f.metric] for f in firsts
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
        "headline": words.headline(ranked),
        "methods": _standing(ranked),
        "families": families,
        "many": len(ranked) > MANY,
        "leaking": [panel.metric for panel in ranked if words.leaks(panel)],
        "scores": len(all_panels) > len(firsts),
        "how": {name: _how(settings) for name, settings in facts.how.items()},
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


def _how(settings: Mapping[str, str]) -> str:
    """Return the settings that the numbers of a metric depend on, in one line. Settings that are none are left out."""
    given = [f"{_HOW[setting]}: {settings[setting]}" for setting in HOW if settings.get(setting, "none") != "none"]
    return "; ".join(given) + "." if given else ""


def _section(
    panel: Panel, all_panels: Sequence[Panel], looks: dict[str, figure.Style], names: dict[tuple[str, str, str], str]
) -> dict[str, Any]:
    by = "a dot per method" if panel.stands == "value" else f"by {panel.axis}, a line per method"
    title = f"{panel.metric}: {panel.score.replace('_', ' ')}, {by}"
    return {
        "panel": panel,
        "id": names[panel.metric, panel.score, panel.rows[0].method].replace("curve-", "panel-", 1),
        "about": words.about(panel),
        "findings": words.findings(panel, all_panels),
        "svg": figure.inline(panel, looks, names, title),
    }


def _every_first(firsts: Sequence[Panel], ranked: Sequence[Panel]) -> list[Panel]:
    """Return the first panel of each metric, with ranks where methods are ranked."""
    with_ranks = {panel.metric: panel for panel in ranked}
    return [with_ranks.get(panel.metric, panel) for panel in firsts]


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
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    return path
