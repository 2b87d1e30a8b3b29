"""Grid pointing game: in a mosaic of images, how much of a map lies in the cell whose class it explains.

Source: Boehle, Fritz & Schiele 2021, section 4 (arXiv:2104.00032); Rao, Boehle & Schiele 2022 (arXiv:2205.10435).
"""

from efface.metrics.formula import Metric
from efface.metrics.shared.mosaic import Mosaics, Size, read_grid


def grid_pointing_game(*, side: int = 2, size: Size = "larger", mosaics: int = 100) -> Metric:
    """The share of positive relevance, in a mosaic of images of distinct classes, in the cell asked about.

    The images are those of the test split that are classified rightly, the surest first, each in one mosaic; the class
    is the true one, whatever `explain` says. Chance is 1 / side^2. It needs no masks. It asks the network about images
    of a kind that it was not trained on, and takes for granted that the class's evidence lies in its cell: a network
    that finds some of a class in other cells has a truthful map below 1. Missing where a map has no positive value, and
    for images in no mosaic. By default `post` sums channels and nothing else, so that evidence against the class does
    not count.

    side: cells across and down, at least 2; side^2 classes are needed. Each mosaic costs side^2 maps.
    size: larger, side times the images' height and width, which the network has to accept (and side^2 times the cost
        a map); same, the cells are shrunk.
    mosaics: how many at most, at least 1.

    Source: Boehle et al. 2021, section 4 (arXiv:2104.00032), with 3 x 3 cells; Rao et al. 2022, section 3.
    Differs: no threshold of confidence, the order by it instead; each image in one mosaic, so that samples are
        independent.
    """
    read_grid("grid_pointing_game", side, mosaics)
    return Metric(
        probes=lambda point: {"cells": Mosaics(side, size, mosaics, point.post)},
        value=lambda scores: {"share": scores["cells"].values["share"]},
        direction={"share": "higher"},
        sample="images",
        uses=frozenset({"post"}),
        caption=f"Mosaics of {side} x {side} test images of distinct classes: the share of the positive relevance for "
        f"a cell's class that lies in that cell. A truthful map of a network that tells the classes apart has it "
        f"there; chance is {1 / side**2:.3g}.",
        family="localisation",
        defaults={"post": ["efface.erase.post.channel_sum"]},
        axis="",
        points_for=lambda _shape: (0.0,),
    )
