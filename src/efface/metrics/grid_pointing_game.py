"""Grid pointing game: the share of a map, in a mosaic of images, in the cell whose class it explains.

Source: Böhle, Fritz & Schiele 2021, section 4 (arXiv:2104.00032); Rao, Böhle & Schiele 2022 (arXiv:2205.10435).
"""

from efface.metrics.formula import Metric, values_of
from efface.metrics.shared.mosaic import Mosaics, Size, read_grid


def grid_pointing_game(*, side: int = 2, size: Size = "larger", mosaics: int = 100) -> Metric:
    """Share of positive relevance in the explained cell of a mosaic of images of distinct classes.

    The images are correctly classified test images, the most confident first, each in one mosaic. The explained class
    is the true one for any `explain`. Chance is 1 / side^2. The metric needs no masks. It runs the network on images of
    a kind that was not in its training, and assumes that the evidence for a class is in its cell. If a network finds
    some of it in other cells, a truthful map scores below 1. A value is missing if a map has no positive value, and for
    images in no mosaic. By default `post` only sums channels, so that evidence against the class does not count.

    side: cells across and down, at least 2. It needs side^2 classes. Each mosaic costs side^2 maps.
    size: larger: side times the height and width of an image. The network must accept this size, and a map costs side^2
        times as much. same: the cells are shrunk.
    mosaics: largest number of mosaics, at least 1.

    Source: Böhle et al. 2021, section 4 (arXiv:2104.00032), with 3 x 3 cells; Rao et al. 2022, section 3.
    Differs: no threshold of confidence, the order by it instead; each image in one mosaic, so that samples are
        independent.
    """
    read_grid("grid_pointing_game", side, mosaics)
    return Metric(
        probes=lambda point: {"cells": Mosaics(side, size, mosaics, point.post)},
        value=values_of("cells", "share"),
        direction={"share": "higher"},
        ranges={"share": (0.0, 1.0)},
        sample="images",
        uses=frozenset({"post"}),
        caption=f"Mosaics of {side} x {side} test images of distinct classes. The score is the share of the positive "
        f"relevance for a cell's class in that cell. If the network separates the classes, a truthful map has its "
        f"relevance there. Chance is {1 / side**2:.3g}.",
        family="localisation",
        defaults={"post": ["efface.erase.post.channel_sum"]},
        axis="",
    )
