"""Grid, ticks and labels around the axes of a figure, drawn as few objects.

Each tick of matplotlib is five objects. To make and to draw them takes most of the time of a figure.
"""

import functools
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.textpath import text_to_path

from efface.report.looks import GREY

_WIDTH, _LENGTH, _PAD = 0.8, 3.5, 3.5  # of ticks and the space beside them, in points, as matplotlib has them
_BETWEEN = 4.0  # points between the labels of ticks and that of the axis
_ABOVE = 3.0  # points between the axes and a factor
_TITLE = 6.0  # points between the axes and the title
Line = tuple[tuple[float, float], tuple[float, float]]


def surround(
    axes: Axes,
    x: str,
    y: str,
    *,
    title: str = "",
    grid: str = "xy",
    names: Sequence[str] = (),
    size: float | None = None,
) -> None:
    """Draw what surrounds the axes in place of matplotlib. Their place must be set before.

    x, y: labels of the axes.
    title: text above the axes.
    grid: axes whose ticks have a line across the figure.
    names: labels of 0, 1, 2, ... on the y axis, in place of its ticks.
    size: font size of these labels in points; None is that of all text.
    """
    axes.set_axis_off()
    medium = float(mpl.rcParams["font.size"])
    small = medium if size is None else size
    figure = axes.get_figure(root=True)
    assert figure is not None
    width, height = (float(72 * inches) for inches in axes.get_position().size * figure.get_size_inches())
    length = _LENGTH - _WIDTH / 2  # the cap is half as long as the line is wide
    marks: list[Line] = [((0.0, 0.0), (0.0, 1.0)), ((0.0, 0.0), (1.0, 0.0))]

    places, labels, factor = _ticks(axes, "x")
    for at, label in zip(places, labels, strict=True):
        marks.append(((at, 0.0), (at, -length / height)))
        _text(axes, at, -(_LENGTH + _PAD) / height, label, ha="center", va="top")
    if "x" in grid:
        _lines(axes, [((at, 0.0), (at, 1.0)) for at in places], alpha=0.25, linewidth=0.6, zorder=1.5)
    below = _LENGTH + (_PAD + extent("lp", medium)[1] if labels else 0.0)
    _text(axes, 1.0, -(below + _ABOVE) / height, factor, ha="right", va="top")
    _text(axes, 0.5, -(below + _BETWEEN) / height, x, ha="center", va="top")

    places, labels, factor = _ticks(axes, "y", names)
    for at, label in zip(places, labels, strict=True):
        marks.append(((0.0, at), (-length / width, at)))
        _text(axes, -(_LENGTH + _PAD) / width, at, label, ha="right", va="center_baseline", size=small)
    if "y" in grid:
        _lines(axes, [((0.0, at), (1.0, at)) for at in places], alpha=0.25, linewidth=0.6, zorder=1.5)
    _lines(axes, marks, linewidth=_WIDTH, zorder=2.5, clip_on=False)
    _text(axes, 0.0, 1 + _ABOVE / height, factor, ha="left", va="baseline")
    if y:
        left = _LENGTH + max((_PAD + extent(text, small)[0] for text in labels), default=0.0)
        upright = {"rotation": 90, "rotation_mode": "anchor"}
        _text(axes, -(left + _BETWEEN) / width, 0.5, y, ha="center", va="bottom", **upright)
    if title:
        meets = max(extent(line, 10.0)[0] for line in title.split("\n")) / 2 + extent(factor, medium)[0] > width / 2
        above = _TITLE + (extent("lp", medium)[1] if factor and meets else 0.0)
        place = (1.0, "right") if names else (0.5, "center")
        _text(
            axes,
            place[0],
            1 + above / height,
            title,
            ha=place[1],
            va="bottom" if "\n" in title else "baseline",
            size=10.0,
        )


def _ticks(axes: Axes, which: str, names: Sequence[str] = ()) -> tuple[list[float], list[str], str]:
    """Return the places of the ticks from 0 to 1, their labels, and the factor or term of all labels."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    formatter = axis.get_major_formatter()
    ticks = [float(tick) for tick in (range(len(names)) if names else axis.get_major_locator()())]
    labels = list(names) or formatter.format_ticks(ticks)
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    places = [(tick - low) / (high - low) for tick in ticks]
    seen = [i for i, place in enumerate(places) if -1e-9 <= place <= 1 + 1e-9]
    return [places[i] for i in seen], [labels[i] for i in seen], "" if names else formatter.get_offset()


def _lines(axes: Axes, lines: Sequence[Line], **look: Any) -> None:
    if lines:
        codes = [Path.MOVETO, Path.LINETO] * len(lines)
        path = Path([end for line in lines for end in line], codes)
        look |= {"transform": axes.transAxes, "edgecolor": GREY, "facecolor": "none", "capstyle": "projecting"}
        axes.add_artist(PathPatch(path, **look))


def _text(axes: Axes, x: float, y: float, text: str, **look: Any) -> None:
    if text:
        axes.text(x, y, text, transform=axes.transAxes, **look)


@functools.cache
def extent(text: str, size: float) -> tuple[float, float]:
    """Return width and height of a line in points, in the default font."""
    width, height, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return width, height
