"""Lines at the bottom of a terminal that are drawn anew."""

import os
import unicodedata
from collections.abc import Sequence
from typing import Any

from efface.base.shown import cut


def is_terminal(stream: Any) -> bool:
    """Return whether lines on this stream can be drawn anew: it is a terminal that knows how to."""
    return bool(stream.isatty()) and os.environ.get("TERM", "dumb") != "dumb"


def size(stream: Any) -> os.terminal_size:
    """Return the columns and rows of a terminal; 80 and 24 if it does not say them."""
    try:
        found = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        found = os.terminal_size((0, 0))
    return os.terminal_size((found.columns or 80, found.lines or 24))


CLEAR = "\r\x1b[J"
"""Erases the present line of a terminal, and all below."""


def block(lines: Sequence[str], columns: int) -> str:
    """Return what draws lines on a terminal below the cursor, in place of those that are there.

    The cursor stays on the empty line above: what others print lands there, and the next block is drawn below it. A
    new size of the terminal does no harm either, for nothing depends on what was drawn before.
    """
    fitting = "".join(f"\n{_cut_to(columns - 1, cut(line))}" for line in lines)
    return f"{CLEAR}{fitting}\r\x1b[{len(lines)}A" if lines else CLEAR


def _cut_to(columns: int, text: str) -> str:
    """Return the beginning of a text that fits into so many columns."""
    kept, used = [], 0
    for letter in text:
        used += 0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if used > columns:
            break
        kept.append(letter)
    return "".join(kept)
