"""Numbers, intervals, names and lists as text."""

import re
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from efface.report.stats import Interval


def number(value: float, value_unit: str = "", *, signed: bool = False) -> str:
    """Format a number with three decimals, or fewer for large values, and a true minus sign.

    value_unit: unit of the number, such as "%".
    """
    if np.isnan(value):
        return "?"
    decimals = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    text = f"{round(value, decimals) + 0.0:{'+' if signed else ''}.{decimals}f}".replace("-", "\N{MINUS SIGN}")
    return text + (f" {value_unit}" if value_unit else "")


def two_digits(value: float) -> str:
    """Format a number from -1 to 1 with its sign and two decimals."""
    return "?" if np.isnan(value) else f"{round(value, 2) + 0.0:+.2f}".replace("-", "\N{MINUS SIGN}")


def p_value(p: float) -> str:
    """Format a p value: two digits, or "< 0.001"; a dash without a test."""
    return "\N{EN DASH}" if np.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.2g}"


def percent_of(value: float) -> str:
    """Format a share as a whole number of percent; "?" if it is not known."""
    return "?" if np.isnan(value) else f"{100 * value:.0f} %"


def plus_minus(cell: Interval, value_unit: str = "", nothing: str = "not run yet") -> str:
    """Format a mean with the half-width of its interval, or with both ends if the interval is asymmetric.

    nothing: the text for a cell without a mean.
    """
    if cell.n == 0:
        return nothing
    if cell.n == 1 or np.isnan(cell.low):
        return number(cell.mean, value_unit)
    below, above = number(cell.mean - cell.low), number(cell.high - cell.mean)
    width = f"± {below}" if below == above else f"[{number(cell.low)}, {number(cell.high)}]"
    return f"{number(cell.mean)} {width}" + (f" {value_unit}" if value_unit else "")


def between(cell: Interval, value_unit: str = "") -> str:
    """Format a mean with its interval in brackets. The text is empty if there is no mean."""
    if cell.n == 0:
        return ""
    mean = number(cell.mean, value_unit, signed=True)
    return (
        mean
        if cell.n == 1 or np.isnan(cell.low)
        else f"{mean} [{number(cell.low, signed=True)}, {number(cell.high, signed=True)}]"
    )


def point(at: float, axis: str = "fraction removed") -> str:
    """Format a point of an axis as a heading. 0.1 of a fraction or share becomes "10 %"."""
    return percent(at) if is_share(axis) else f"{at:.4g}"


def is_share(axis: str) -> bool:
    """Return whether an axis counts parts of a whole."""
    return axis.startswith(("fraction", "share"))


def percent(fraction: float) -> str:
    """Format a fraction in percent."""
    return f"{100 * fraction:.4g} %"


def duration(seconds: float) -> str:
    """Format seconds as text: 1.5 s, 2 min 3 s, 1 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def listed(names: Sequence[str], most: int = 6) -> str:
    """Join names to a phrase. Names after the first `most` are counted."""
    names = [*names[:most], f"{len(names) - most} more"] if len(names) > most + 1 else list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def breakable(text: str) -> Markup:
    """Return names whose lines break behind _ and /, within a word only if it has more than 20 letters."""
    parts = re.split(r"(?<=[_/])(?=[^_/])", text)
    return Markup("<wbr>").join(
        Markup('<span class="long">{}</span>').format(part) if max(map(len, re.split(r"[\s-]", part))) > 20 else part
        for part in parts
    )
