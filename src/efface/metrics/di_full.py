"""DiFull: the grid pointing game on a network that sees the asked cell alone, so that all relevance elsewhere is wrong.

Source: Rao, Boehle & Schiele 2022, section 3 (arXiv:2205.10435).
"""

from efface.metrics.formula import Metric
from efface.metrics.shared.mosaic import Mosaics, Size, read_grid


def di_full(*, side: int = 2, size: Size = "larger", mosaics: int = 100, fill: float = 0.5) -> Metric:
    """The share of positive relevance in the one cell of a mosaic that the network sees.

    Mosaics as in `grid_pointing_game`. For each cell the network is shown that cell and grey around it, whatever is
    there, so no pixel elsewhere can matter: a gradient scores 1 exactly, as does every map that is 0 where the
    gradient is. What falls short of 1 is the method's own blur (CAMs) or invention (edges, control maps). Missing as
    there.

    side, size, mosaics: as in `grid_pointing_game`.
    fill: value of every pixel around the cell, in [0, 1].

    Source: Rao et al. 2022, section 3 (arXiv:2205.10435).
    Differs: there each cell goes through the network by itself and the features stand side by side, a head for each
        cell; here the others are grey, which works for any network and layer, but shows a CAM grey features around the
        cell instead of those of other images, and so is kinder to it.
    """
    read_grid("di_full", side, mosaics)
    if not 0 <= fill <= 1:
        raise ValueError(f"di_full: fill is {fill}, expected a number from 0 to 1; change it")
    return Metric(
        probes=lambda point: {"cells": Mosaics(side, size, mosaics, point.post, float(fill))},
        value=lambda scores: {"share": scores["cells"].values["share"]},
        direction={"share": "higher"},
        sample="images",
        uses=frozenset({"post"}),
        caption=f"Mosaics of {side} x {side} test images, of which the network sees one cell: the share of the "
        "positive relevance that lies in it. Any elsewhere is wrong, whatever the network has learnt.",
        family="localisation",
        defaults={"post": ["efface.erase.post.channel_sum"]},
        axis="",
        points_for=lambda _shape: (0.0,),
    )
