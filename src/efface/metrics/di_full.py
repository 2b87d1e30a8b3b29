"""DiFull: the grid pointing game for a network that sees only the explained cell. All relevance elsewhere is wrong.

Source: Rao, Böhle & Schiele 2022, section 3 (arXiv:2205.10435).
"""

from efface.metrics.formula import Metric, values_of
from efface.metrics.shared.mosaic import Mosaics, Size, read_grid


def di_full(*, side: int = 2, size: Size = "larger", mosaics: int = 100, fill: float = 0.5) -> Metric:
    """Share of positive relevance in the one cell of a mosaic that the network sees.

    The mosaics are those of `grid_pointing_game`. For each cell, the network sees that cell and grey around it, for any
    image, so no other pixel can matter. A gradient scores exactly 1, and so does every map that is 0 where the gradient
    is 0. A lower score comes from the method: from its blur (CAMs), or from relevance without a cause (edges, control
    maps). Values are missing in the same cases as in `grid_pointing_game`.

    side, size, mosaics: as in `grid_pointing_game`.
    fill: value of every pixel around the cell, in [0, 1].

    Source: Rao et al. 2022, section 3 (arXiv:2205.10435).
    Differs: there each cell goes through the network by itself and the features stand side by side, a head for each
        cell; here the others are grey, which works for any network and layer, but shows a CAM grey features around the
        cell instead of those of other images, so a CAM scores higher here.
    """
    read_grid("di_full", side, mosaics)
    if not 0 <= fill <= 1:
        raise ValueError(f"di_full: fill is {fill}, expected a number from 0 to 1; change it")
    return Metric(
        probes=lambda point: {"cells": Mosaics(side, size, mosaics, point.post, float(fill))},
        value=values_of("cells", "share"),
        direction={"share": "higher"},
        sample="images",
        uses=frozenset({"post"}),
        caption=f"The network sees one cell of a mosaic of {side} x {side} test images. The score is the share of the "
        "positive relevance in that cell. Relevance elsewhere is wrong for any network.",
        family="localisation",
        defaults={"post": ["efface.erase.post.channel_sum"]},
        axis="",
        ranges={"share": (0.0, 1.0)},
    )
