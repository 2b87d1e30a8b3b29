"""How methods look in every figure, and the ids of their lines."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from efface.report.table import Panel

GREY = "#8a8f98"
# Okabe & Ito's colours, tuned to read on white and on near-black; yellow and black gave way to violet and olive.
COLOURS = ("#1f7fc4", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#9a9a1c")
DASHES = ((), (5.0, 1.6), (1.4, 1.4), (6.0, 1.6, 1.4, 1.6))


class Style(NamedTuple):
    """Look of a method's line in every figure.

    colour: colour of the line.
    dashes: lengths of dashes and gaps in points, empty for a solid line.
    """

    colour: str
    dashes: tuple[float, ...]


def styles(methods: Iterable[str], references: Sequence[str] = ()) -> dict[str, Style]:
    """Return a look for each method. There are 32 different looks; the reference is grey and dashed.

    methods: names of the methods.
    references: names of the references; the first two are grey.
    """
    looks = {name: Style(GREY, (4.0, 2.4) if i == 0 else (1.4, 1.4)) for i, name in enumerate(references[:2])}
    for i, name in enumerate(name for name in dict.fromkeys(methods) if name not in looks):
        looks[name] = Style(COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)])
    return looks


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
