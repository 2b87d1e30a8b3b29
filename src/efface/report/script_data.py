"""What the scripts of the page are given: the values of curves, and the pictures and scores of single images."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from efface.metrics.formula import FRACTION_REMOVED
from efface.report.figure import Drawn
from efface.report.formats import percent, point
from efface.report.looks import Style
from efface.report.pictured import Pictured
from efface.report.table import Panel, Row

_DIGITS = 5


def curve_data(drawn: Mapping[str, tuple[Panel, Drawn]]) -> dict[str, Any]:
    """Return the values of each figure by its id: the box of the axes, their ends, and each method's interval."""
    return {
        name: {
            "box": made.box,
            "ends": made.ends,
            "says": f"Where the {panel.axis} is {{}}, the means of the {panel.score.replace('_', ' ')} are:",
            "at": panel.fractions,
            "labels": [point(at, panel.axis) for at in panel.fractions],
            "rows": [
                [
                    row.method,
                    *(
                        [_rounded(getattr(cell, field)) if cell.n else None for cell in row.intervals]
                        for field in ("mean", "low", "high")
                    ),
                ]
                for row in panel.rows
            ],
        }
        for name, (panel, made) in drawn.items()
    }


def image_data(
    gallery: Pictured,
    panels: Collection[Panel],
    looks: Mapping[str, Style],
    controls: Collection[str],
) -> dict[str, Any]:
    """Return what the browser of images needs besides the pictures of the table."""
    fractions = sorted({gallery.fraction, *gallery.further})
    given = fractions.index(gallery.fraction)
    others = [i for i in range(len(fractions)) if i != given]
    places = {at: i for i, at in enumerate(gallery.further)}
    further = {
        name: {i: [tile.further[places[fractions[i]]] for tile in tiles] for i in others if tiles[0].further}
        for name, tiles in gallery.tiles.items()
    }
    whole = {
        name: {i: [gallery.whole.get(each, "") for each in row] for i, row in rows.items()}
        for name, rows in further.items()
    }
    return {
        "labels": gallery.labels,
        "rows": gallery.numbers,
        "why": gallery.why or [""] * len(gallery.labels),
        "methods": list(gallery.tiles),
        "controls": sorted(controls),
        "fractions": fractions,
        "fraction_labels": [f"{percent(at)} of the {gallery.removed}" for at in fractions],
        "given": given,
        "further": further,
        "whole": whole,
        "scores": _scores(gallery, panels),
        "looks": dict(looks),
    }


def _scores(gallery: Pictured, panels: Collection[Panel]) -> dict[str, Any]:
    """Return the scores of the gallery's images, of each metric that erases and has a score for each image.

    Of several scores of a metric, it is the probability, which changes more finely than whether the network is right.
    """
    found: dict[str, Panel] = {}
    for panel in panels:
        erases = panel.sample == "images" and panel.axis == FRACTION_REMOVED and len(panel.fractions) > 1
        if erases and (panel.metric not in found or panel.score == "probability"):
            found[panel.metric] = panel
    return {
        metric: {
            "score": panel.score.replace("_", " "),
            "axis": panel.axis,
            "direction": panel.direction,
            "reference": panel.reference,
            "at": panel.fractions,
            "labels": [point(at, panel.axis) for at in panel.fractions],
            "methods": {row.method: _of_images(row, panel, gallery.numbers) for row in panel.rows},
        }
        for metric, panel in found.items()
    }


def _of_images(row: Row, panel: Panel, images: Collection[int]) -> list[list[float | None]]:
    """Return the scores of these images at each point; None where there is none."""
    place = {image: i for i, image in enumerate(row.curve.pairs or ())}
    columns = [row.curve.at.index(at) for at in panel.fractions]
    return [
        [_rounded(float(row.curve.values[place[image], column])) if image in place else None for column in columns]
        for image in images
    ]


def _rounded(value: float) -> float | None:
    return None if not np.isfinite(value) else float(f"{value:.{_DIGITS}g}")
