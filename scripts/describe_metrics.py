"""Write the generated parts of docs/metrics.md, from docstrings, signatures and the metrics themselves.

    python scripts/describe_metrics.py

It replaces the tables between the markers on the page: every metric, unit and fill. No network runs.
"""

import importlib
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from describe_methods import fill, markdown, value

import efface.impute
from efface.erase import units
from efface.metrics import Metric, metric, names
from efface.plug import docstrings
from efface.plug.call import resolve
from efface.report.table import FAMILIES

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
ARROWS = {"lower": "&darr;", "higher": "&uarr;", "none": "(describes)"}
HANDED = {"images", "removed", "mean", "seeds", "training", "token_size"}  # passed by efface, so no settings of a study
NOTEBOOK = {"sources", "pixels", "rows"}
SHORT = ("efface.impute.", "efface.erase.units.", "efface.erase.post.")
LISTED = 9  # points that are written out


def main() -> None:
    for part, table in (
        ("metrics", metrics_table()),
        ("reads", reads()),
        ("units", plugs(units, ["patch", "token", "superpixel"])),
        ("fills", fills()),
    ):
        fill(part, table, PAGE)


def metrics_table() -> str:
    """Return the tables of metrics by family, from docstrings, signatures and values."""
    found = {name: metric(name) for name in names()}
    parts = []
    for family in FAMILIES:
        rows = [row(name, each) for name, each in found.items() if family_of(each) == family]
        head = ("", "what it computes", "values", "points", "settings", "source", "differs")
        if rows:
            parts += [f"### {family.capitalize()}", markdown(head, rows)]
    return "\n\n".join(parts)


def reads() -> str:
    """Return the table of sets of shared settings that change numbers, and the metrics with each set."""
    rows: dict[str, list[str]] = {}
    for name in names():
        rows.setdefault(read_by(metric(name)), []).append(f"`{name}`")
    return markdown(("reads", "metrics"), [(read, ", ".join(of)) for read, of in sorted(rows.items(), reverse=True)])


def read_by(found: Metric) -> str:
    """Return the shared settings that the metric uses, in words."""
    values = {each: f"`{each}`" for each in ("imputer", "unit", "post", "fractions")}
    if "groups" not in found.uses:
        values["unit"] += " (`pixel` or `feature`)"
    return ", ".join(words for each, words in values.items() if each in found.uses) or "none"


def family_of(found: Metric) -> str:
    """Return the heading of a metric. Metrics of the network have their own."""
    return "network" if found.subject == "network" else found.family


def row(name: str, found: Metric) -> tuple[str, ...]:
    where = described(name)
    return (
        f"`{name}`",
        sentence(where),
        ", ".join(f"`{score}` {ARROWS[better]}" for score, better in found.direction.items()),
        points(found),
        settings(name, found.defaults),
        said(where, "Source"),
        said(where, "Differs"),
    )


def described(name: str) -> Any:
    """Return the object with a metric's docstring: its function, or its file if the metric is a value."""
    path = f"efface.metrics.{name}"
    made = resolve(f"{path}.{name}")
    return made if inspect.isfunction(made) else importlib.import_module(path)


def sentence(found: Any) -> str:
    """Return the first line of the docstring."""
    return docstrings.first_line(inspect.getdoc(found) or "")


def said(found: Any, word: str) -> str:
    """Return the text after `Source:` or `Differs:`, up to the end of the paragraph or the next such word."""
    return docstrings.said(inspect.getdoc(found) or "", word)


def points(found: Metric) -> str:
    """Return the points of the curve, the number that summarises it, and the sample."""
    sample = "repeat" if found.sample == "repeats" else "image"
    if not found.axis:
        return f"one number for each {sample}"
    small, large = (found.points_for((3, side, side)) if found.points_for else () for side in (32, 224))
    if not found.points_for:
        where = spelt(tuple(found.defaults.get("fractions", ()))) or "the study's `fractions`"
    else:
        where = spelt(small) if small == large else "by the image's size"
    means = f", of `{'`, `'.join(found.by_mean)}` mean" if found.by_mean else ""
    return f"{found.axis}: {where}; {found.summary}{means} for each {sample}"


def spelt(at: Sequence[float]) -> str:
    """Return numbers as text, as a range if there are many."""
    steps = {round(b - a, 6) for a, b in itertools.pairwise(at)}
    if len(steps) == 1 and len(at) > 3:
        return f"{at[0]:g} to {at[-1]:g} by {steps.pop():g}"
    return ", ".join(f"{each:g}" for each in at) if len(at) <= LISTED else f"{len(at)} from {at[0]:g} to {at[-1]:g}"


def settings(name: str, fixed: Mapping[str, Any]) -> str:
    """Return the metric's own settings with their defaults, then the shared ones that its paper fixes."""
    made = described(name)
    own = inspect.signature(made).parameters.items() if inspect.isfunction(made) else ()
    told = [f"`{each}: {value(parameter.default)}`" for each, parameter in own]
    told += [f"`{each}: {shared(setting)}`" for each, setting in fixed.items() if each != "fractions"]
    return ", ".join(told)


def shared(setting: Any) -> str:
    """Return the short name of a call, with its settings."""
    if isinstance(setting, Mapping):
        inner = ", ".join(f"{key}: {each}" for key, each in setting.get("kwargs", {}).items())
        return shared(setting["call"]) + (f" {{{inner}}}" if inner else "")
    if isinstance(setting, list | tuple):
        return f"[{', '.join(map(shared, setting))}]"
    for prefix in SHORT:
        setting = str(setting).removeprefix(prefix)
    return str(setting)


def fills() -> str:
    return plugs(efface.impute, efface.impute.__all__)


def plugs(shelf: Any, listed: Sequence[str]) -> str:
    """Return the table of functions that a study can name, with their settings."""
    rows = [
        (f"`{name}`", sentence(each), own(each), said(each, "Source"), said(each, "Differs"))
        for name, each in ((name, getattr(shelf, name)) for name in listed)
    ]
    return markdown(("", "what it does", "settings", "source", "differs"), rows)


def own(function: Callable[..., Any]) -> str:
    told = (each for name, each in inspect.signature(function).parameters.items() if name not in HANDED | NOTEBOOK)
    return ", ".join(
        f"`{each.name}`" + " (needed)" if each.default is each.empty else f"`{each.name}: {value(each.default)}`"
        for each in told
    )


if __name__ == "__main__":
    main()
