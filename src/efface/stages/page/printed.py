"""The verdicts of a page on the terminal. They are read from the `verdicts.csv` of the page, so they are the same."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from efface.report.cautions import weak_network
from efface.report.verdicts import printed
from efface.stages.run.progress import say

PLAIN = str.maketrans({"\N{MINUS SIGN}": "-", "\N{PLUS-MINUS SIGN}": "+-", "\N{DAGGER}": "*", "\N{MIDDLE DOT}": "."})
"""What stands for a sign that the terminal cannot show."""


def say_verdicts(report: Path, metrics: Sequence[str] = ()) -> None:
    """Print the verdicts of a page; nothing if there are none yet.

    report: folder of the page. metrics: these alone; all by default.
    """
    path = report / "verdicts.csv"
    if not path.is_file():
        return
    texts = dict.fromkeys(("metric", "score", "method", "verdict", "unit", "stands", "reference", "kind", "note"), str)
    numbers = {name: [""] for name in ("value", "low", "high", "rank")}  # elsewhere an empty field is an empty text
    table = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=numbers)
    for line in printed(table, metrics):
        say(_plain(line))


def say_page(path: Path, accuracy: float, chance: float) -> None:
    """Print where a page lies, and the caution on a network that has learnt little.

    accuracy, chance: of its network; NaN where they are not known.
    """
    say(f"report: {path}")
    if weak := weak_network(accuracy, chance):
        say(f"caution: {weak}")


def _plain(line: str) -> str:
    """Return a line with signs that the terminal can show."""
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        line = line.translate(PLAIN)
        return line.encode(sys.stdout.encoding, "replace").decode(sys.stdout.encoding)
    return line
