"""Figures of curves: one SVG for each panel of the page, and one figure of all panels for a paper."""

import io
import itertools
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter

from efface.report.formats import is_share
from efface.report.looks import GREY, Style, identifiers, name_lines
from efface.report.table import Panel
from efface.report.ticks import extent, surround

SVG = "http://www.w3.org/2000/svg"
_LABEL = 22  # characters of a line of a name beside a dot
_LEGEND = 40  # characters of a line of a name in a legend, or of a title
_PLAIN: dict[Any, Any] = {"text.parse_math": False}  # a name is no formula
_LINE = 0.15  # inches of a further line of a name beside a dot
COLUMN = 3.25
"""Width in inches of a column of most two-column papers."""
CROWDED = 16
"""Largest number of methods whose curves have markers and bands. More are lines alone, drawn as one object."""
XLINK = "http://www.w3.org/1999/xlink"


class Drawn(NamedTuple):
    """A figure of the page.

    svg: the SVG element.
    box: left, top, right and bottom of the axes in units of its view box.
    ends: the values of the axes at left, right, bottom and top.
    """

    svg: str
    box: tuple[float, ...]
    ends: tuple[float, ...]


def inline(panel: Panel, looks: Mapping[str, Style], names: dict[tuple[str, str, str], str], title: str) -> Drawn:
    """Return the panel as an SVG element for a page. Text stays text, and its ids differ from those of other figures.

    The page sets the colours of text and axes. Each curve and band is a group with the name of its method.
    """
    salt = names[panel.metric, panel.score, panel.rows[0].method]
    with mpl.rc_context({**_PLAIN, "svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 9.5}):
        width, height = 7.0, 0.9 + _height(panel, 0.26) if panel.stands == "value" else 3.9
        figure = Figure(figsize=(width, height))
        axes = figure.subplots()
        figure.subplots_adjust(_margin(panel) / width, 0.5 / height, 1 - 0.15 / width, 1 - 0.15 / height)
        _draw(axes, panel, looks, names)
        left, bottom, right, top = (float(edge) for edge in axes.get_position().extents)
        box = (72 * width * left, 72 * height * (1 - top), 72 * width * right, 72 * height * (1 - bottom))
        ends = (*axes.get_xlim(), *axes.get_ylim())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    methods = {names[panel.metric, panel.score, row.method]: row.method for row in panel.rows}
    lacking = {
        names[panel.metric, panel.score, row.method]
        for row in panel.rows
        if not any(np.isfinite(cell.mean) for cell in row.intervals)
    }
    svg = _embed(buffer.getvalue(), methods, title, salt, lacking)
    return Drawn(svg, tuple(round(edge, 2) for edge in box), tuple(float(end) for end in ends))


def sheet(panels: Sequence[Panel], looks: Mapping[str, Style]) -> dict[str, bytes]:
    """Return the panels side by side with one legend, as "svg" and "pdf" files. Equal curves give equal bytes."""
    names = identifiers(panels)
    columns = min(3, len(panels)) or 1
    lines = math.ceil(len(panels) / columns) or 1
    shown = [name for name in looks if any(panel.row(name) for panel in panels)]
    legend_columns = max(1, min(len(shown), int(columns * 4.2 / (0.6 + _width(shown, _LEGEND, 9.0)))))
    legend_height = _legend_height(shown, legend_columns, 0.22) + 0.2
    titles = ["\n".join(name_lines(panel.metric + _good(panel), _LEGEND)) for panel in panels]
    tall = 3.0 + 0.17 * max((title.count("\n") for title in titles), default=0)
    look = _PLAIN | {"svg.fonttype": "path", "svg.hashsalt": "efface", "pdf.fonttype": 42, "font.size": 9}
    with mpl.rc_context(look):
        width, height = columns * 4.2, lines * tall + legend_height
        figure = Figure(figsize=(width, height))
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes, place in zip(grid.flat, itertools.product(range(lines), range(columns)), strict=True):
            panel = panels[i] if (i := place[0] * columns + place[1]) < len(panels) else None
            left = place[1] * 4.2 + (_margin(panel) if panel else 0.85)
            bottom = height - (place[0] + 1) * tall + 0.55
            right, top = (place[1] + 1) * 4.2 - 0.15, bottom + 2.1
            axes.set_position((left / width, bottom / height, (right - left) / width, (top - bottom) / height))
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes, panel, title in zip(grid.flat, panels, titles, strict=False):
            _draw(axes, panel, looks, names, title)
        _legend(figure, looks, shown, legend_columns)
        files = {}
        for kind, stamp in (("svg", "Date"), ("pdf", "CreationDate")):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata={stamp: None})
            files[kind] = buffer.getvalue()
    return files


def column(panel: Panel, looks: Mapping[str, Style]) -> bytes:
    """Return a panel as a PDF of the width of a column, with its legend below."""
    methods = [row.method for row in panel.rows]
    is_value = panel.stands == "value"
    columns = max(1, min(3, int(COLUMN / (0.45 + _width(methods, _LEGEND, 7.0)))))
    legend = 0.0 if is_value else _legend_height(methods, columns, 0.16) + 0.1
    height = 0.5 + _height(panel, 0.17) if is_value else 2.0 + legend
    with mpl.rc_context({**_PLAIN, "pdf.fonttype": 42, "font.size": 8, "legend.fontsize": 7}):
        figure = Figure(figsize=(COLUMN, height))
        left = 0.2 + _width(methods, _LABEL, 8.0) if is_value else 0.7
        axes = figure.subplots()
        figure.subplots_adjust(left / COLUMN, (0.42 + legend) / height, 1 - 0.08 / COLUMN, 1 - 0.08 / height)
        _draw(axes, panel, looks, identifiers([panel]))
        if not is_value:
            _legend(figure, looks, methods, columns)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    return buffer.getvalue()


def _legend(figure: Figure, looks: Mapping[str, Style], methods: Sequence[str], columns: int) -> None:
    """Add a legend below the axes."""
    if not methods:
        return
    handles = [Line2D([], [], **_line(looks[name])) for name in methods]
    named = ["\n".join(name_lines(name, _LEGEND)) for name in methods]
    figure.legend(handles, named, loc="lower center", ncols=columns, frameon=False)


def _draw(
    axes: Axes, panel: Panel, looks: Mapping[str, Style], names: dict[tuple[str, str, str], str], title: str = ""
) -> None:
    """Draw the panel. One with a title is one of many: it is smaller, and has fewer ticks."""
    label = panel.score.replace("_", " ") + (f" [{panel.value_unit}]" if panel.value_unit else "")
    if panel.stands == "value":
        _draw_dots(axes, panel, looks, names)
        size = min(9.0, 120 / len(panel.rows)) if title else None
        surround(
            axes,
            label,
            "",
            title=title,
            grid="x",
            names=["\n".join(name_lines(row.method, _LABEL)) for row in panel.rows],
            size=size,
        )
    else:
        _draw_curves(axes, panel, looks, names, every=2 if title and len(panel.fractions) > 6 else 1)
        surround(axes, panel.axis, label, title=title)


def _draw_lines(axes: Axes, panel: Panel, looks: Mapping[str, Style], names: dict[tuple[str, str, str], str]) -> None:
    """Draw the curves of many methods as one object, the best last."""
    rows = [row for row in reversed(panel.rows) if any(np.isfinite(cell.mean) for cell in row.intervals)]
    means = [np.array([cell.mean for cell in row.intervals]) for row in rows]
    kept = [np.isfinite(mean) for mean in means]
    at = np.array(panel.fractions)
    lines = LineCollection(
        [np.column_stack([at[known], mean[known]]) for mean, known in zip(means, kept, strict=True)],
        colors=[looks[row.method].colour for row in rows],
        linestyles=[(0, looks[row.method].dashes or None) for row in rows],
        linewidths=1.3,
    )
    lines.set_gid(_together([names[panel.metric, panel.score, row.method] for row in rows]))
    axes.add_collection(lines)
    axes.autoscale_view()


def _together(names: Sequence[str]) -> str:
    """Return the id of the group of these lines."""
    return f"{names[0]}--all" if names else "no-curves"


def _draw_curves(
    axes: Axes, panel: Panel, looks: Mapping[str, Style], names: dict[tuple[str, str, str], str], every: int
) -> None:
    if len(panel.rows) > CROWDED:
        _draw_lines(axes, panel, looks, names)
    else:
        _draw_marked(axes, panel, looks, names)
    means = [cell.mean for row in panel.rows for cell in row.intervals if cell.n]
    if means and panel.score in ("accuracy", "probability") and min(means) >= 0 and max(means) <= 1:
        bottom, top = axes.get_ylim()  # an interval of few samples may leave [0, 1]; the axis need not
        axes.set_ylim(max(bottom, -0.02), min(top, 1.02))
    if len(panel.fractions) <= 11:
        left, right = axes.get_xlim()
        axes.set_xlim(min(left, panel.fractions[0]), max(right, panel.fractions[-1]))
        axes.xaxis.set_major_locator(FixedLocator(panel.fractions[::every]))
    if is_share(panel.axis):
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.3g} %"))


def _draw_marked(axes: Axes, panel: Panel, looks: Mapping[str, Style], names: dict[tuple[str, str, str], str]) -> None:
    crowded = len(panel.rows) > 8
    for row in reversed(panel.rows):
        name = names[panel.metric, panel.score, row.method]
        mean, low, high = (
            np.array([getattr(cell, field) for cell in row.intervals]) for field in ("mean", "low", "high")
        )
        band = axes.fill_between(panel.fractions, low, high, color=looks[row.method].colour, linewidth=0)
        band.set(gid=name.replace("curve-", "band-", 1), alpha=0.07 if crowded else 0.16)
        (line,) = axes.plot(panel.fractions, mean, marker="o", markersize=3.2, **_line(looks[row.method]))
        line.set(gid=name, zorder=3)


def _draw_dots(axes: Axes, panel: Panel, looks: Mapping[str, Style], names: dict[tuple[str, str, str], str]) -> None:
    for place, row in enumerate(panel.rows):
        mean, low, high = (float(getattr(row.area, field)) for field in ("mean", "low", "high"))
        at, marked = ([low, mean, high], [1]) if np.isfinite(low) else ([mean], [0])
        (line,) = axes.plot(at, [place] * len(at), color=looks[row.method].colour, linewidth=2.2, marker="o")
        line.set(gid=names[panel.metric, panel.score, row.method], zorder=3, markersize=5.0, markevery=marked)
        if row.method == panel.reference and row.area.n:
            axes.axvline(mean, color=GREY, linestyle=(0, (4.0, 2.4)), linewidth=1.0, zorder=1)
    axes.set_ylim(len(panel.rows) - 0.5, -0.5)


def _margin(panel: Panel) -> float:
    """Return the margin left of the axes, in inches. A layout engine would draw to find it, which is much slower."""
    return 0.2 + _width([row.method for row in panel.rows], _LABEL, 9.5) if panel.stands == "value" else 0.85


def _width(names: Sequence[str], line: int, size: float) -> float:
    """Return the width of the widest name in inches. line: characters of a line. size: of the font in points."""
    return max((extent(part, size)[0] for name in names for part in name_lines(name, line)), default=0.0) / 72


def _height(panel: Panel, each: float) -> float:
    """Return the height of the rows of a figure of dots in inches, with `each` for a name of one line."""
    most = max((len(name_lines(row.method, _LABEL)) for row in panel.rows), default=1)
    return (each + _LINE * (most - 1)) * len(panel.rows)


def _legend_height(methods: Sequence[str], columns: int, each: float) -> float:
    most = max((len(name_lines(name, _LEGEND)) for name in methods), default=1)
    return (each + _LINE * (most - 1)) * math.ceil(len(methods) / columns)


def _good(panel: Panel) -> str:
    return "" if panel.direction == "none" else f" ({panel.direction} is better)"


def _rounded(text: str) -> str:
    """Round coordinates to a hundredth of a point. This halves the size of the file without a visible change."""
    return re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", text)


def _line(look: Style) -> dict[str, Any]:
    return {"color": look.colour, "linestyle": (0, look.dashes) if look.dashes else "-", "linewidth": 1.8}


def _embed(text: str, methods: dict[str, str], title: str, salt: str, lacking: set[str]) -> str:
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    root = ET.fromstring(text)  # noqa: S314 -- drawn just above
    unwanted = (f"{{{SVG}}}metadata", f"{{{SVG}}}style")
    for owner, child in [(element, child) for element in root.iter() for child in element if child.tag in unwanted]:
        owner.remove(child)
    for group in [node for node in root.iter() if node.get("id", "").endswith("--all")]:
        drawn = [name for name in reversed(methods) if name not in lacking]
        for path, name in zip([node for node in group if node.tag == f"{{{SVG}}}path"], drawn, strict=True):
            group.remove(path)
            ET.SubElement(group, f"{{{SVG}}}g", id=name).append(path)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    for element in root.iter():
        for attribute in {"d", "x", "y", "transform"} & set(element.attrib):
            element.set(attribute, _rounded(element.attrib[attribute]))
        name = element.get("id", "")
        method = methods.get(name.replace("band-", "curve-", 1))
        if method is not None:
            element.set("class", "band" if name.startswith("band-") else "curve")
            element.set("data-method", method)
            if name in methods:
                label = ET.Element(f"{{{SVG}}}title")
                label.text = f"This is {method}."
                element.insert(0, label)
        elif name and name not in used:
            del element.attrib["id"]
    for attribute in ("width", "height"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{salt}-title")
    heading = ET.Element(f"{{{SVG}}}title", id=f"{salt}-title")
    heading.text = title
    root.insert(0, heading)
    return ET.tostring(root, encoding="unicode")
