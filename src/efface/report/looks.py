"""How methods look in every figure, and the ids of their lines."""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from efface.report.table import Panel

GREY = "#8a8f98"
# Okabe & Ito's colours, tuned to read on white and on near-black; yellow and black gave way to violet and olive.
COLOURS = ("#1f7fc4", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#9a9a1c")
DASHES: tuple[tuple[float, ...], ...] = (
    *((), (5.0, 1.6), (1.4, 1.4), (6.0, 1.6, 1.4, 1.6)),
    *((9.0, 2.0), (2.6, 2.6), (6.0, 1.4, 1.4, 1.4, 1.4, 1.4), (9.0, 1.6, 3.0, 1.6)),
)


class Style(NamedTuple):
    """Look of a method's line in every figure.

    colour: colour of the line.
    dashes: lengths of dashes and gaps in points, empty for a solid line.
    """

    colour: str
    dashes: tuple[float, ...]


def styles(methods: Iterable[str], controls: Collection[str] = ()) -> dict[str, Style]:
    """Return a look for each method, by its place among the methods: 64 different looks. Controls are grey and dashed.

    So a method looks the same on every page and in every figure of a study, whatever its results are.

    methods: names of all methods of the study, in the order of the study.
    controls: those of them that are controls.
    """
    names = dict.fromkeys(methods)
    drawn = [name for name in names if name not in controls]
    looks = {name: Style(COLOURS[i % len(COLOURS)], _dashes(i // len(COLOURS))) for i, name in enumerate(drawn)}
    grey = {name: Style(GREY, _dashes(i + 1)) for i, name in enumerate(name for name in names if name in controls)}
    return {name: (grey if name in controls else looks)[name] for name in names}


def _dashes(place: int) -> tuple[float, ...]:
    return DASHES[place % len(DASHES)]


def name_lines(name: str, width: int) -> list[str]:
    """Return a name in lines of at most this many characters. A line ends after a sign between words, if it can."""
    lines, rest = [], name
    while len(rest) > width:
        end = max((i + 1 for i in range(width // 2, width) if not rest[i].isalnum()), default=width)
        lines.append(rest[:end])
        rest = rest[end:]
    return [*lines, rest]


def identifiers(panels: Sequence[Panel]) -> dict[tuple[str, str, str], str]:
    """Return an element id for each metric, score and method. It is readable, and unique for any names."""
    names: dict[tuple[str, str, str], str] = {}
    taken: set[str] = set()
    for key in ((panel.metric, panel.score, row.method) for panel in panels for row in panel.rows):
        slug = "curve-" + "-".join(re.sub(r"[^a-z0-9_]+", "-", part.lower()).strip("-") or "x" for part in key)
        name, copy = slug, 2
        while name in taken:
            name, copy = f"{slug}-{copy}", copy + 1
        taken.add(name)
        names[key] = name
    return names
