"""The files beside a page: tables of all numbers, tables and figures for papers, and the links of the page to them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from efface.report import figure, frames, paper, verdicts
from efface.report.answer import Best
from efface.report.between import Agreements, Pairs
from efface.report.between_settings import BetweenSettings, settings_table
from efface.report.facts import Facts
from efface.report.looks import Style
from efface.report.outline import OutlineShares, outline_table
from efface.report.table import Panel
from efface.store.atomic import atomic_write


class Links(NamedTuple):
    """Label and address of each table and each figure beside the page."""

    tables: tuple[tuple[str, str], ...]
    figures: tuple[tuple[str, str], ...]


def contents(
    every: Sequence[Panel],
    firsts: Sequence[Panel],
    ranked: Sequence[Panel],
    methods: Sequence[str],
    bests: Sequence[Best],
    pairs: Sequence[Pairs],
    agreements: Agreements,
    looks: Mapping[str, Style],
    facts: Facts,
    tabled: Sequence[Panel],
    settings: Sequence[BetweenSettings],
    shares: Sequence[OutlineShares],
) -> dict[str, bytes]:
    """Return the content of each file beside the page by its name.

    every: all panels. firsts: the first panel of each metric. ranked: those of them that have ranks. methods: the rows
    of the tables, in their order. tabled: panels that appear only in `summary.csv`.
    settings: metrics at several settings. shares: what retrained metrics owe to the outline.
    """
    with_ranks = {panel.metric: panel for panel in ranked}
    tables = {
        "summary": frames.summary_table((*tabled, *every), facts.how),
        "verdicts": verdicts.verdicts_table([with_ranks.get(panel.metric, panel) for panel in firsts]),
        "comparisons": frames.comparisons_table(pairs),
        "agreement": frames.agreement_table(agreements),
    }
    tables |= {"settings": settings_table(settings)} if settings else {}
    tables |= {"outline": outline_table(shares)} if shares else {}
    made = {f"{name}.csv": table.to_csv(index=False).encode() for name, table in tables.items()}
    made |= {f"curves.{suffix}": content for suffix, content in figure.sheet(firsts, looks).items()}
    return made | paper.files(every, methods, ranked, bests, looks)


def links(folder: Path, made: Mapping[str, bytes], facts: Facts) -> Links:
    """Return the links to the files that were made just now, and to those of the study that exist.

    folder: folder of the page. made: the content of the files beside it.
    """
    figures = tuple((name.removeprefix("figures/"), name) for name in made if name.startswith(("curves.", "figures/")))
    tables = tuple((name, name) for name in made if not name.startswith(("curves.", "figures/")))
    others = tuple((label, address) for label, address in facts.origin.tables if (folder / address).is_file())
    return Links((*tables, *others), figures)


def write(folder: Path, made: Mapping[str, bytes]) -> None:
    """Write the files whose content differs, each at once: a killed run never leaves a part of one."""
    for name, content in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != content:
            with atomic_write(path) as temporary:
                temporary.write_bytes(content)
