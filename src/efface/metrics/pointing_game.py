"""Pointing game: whether a map's largest value lies on the true object.

Source: Zhang, Bargal, Lin, Brandt, Shen & Sclaroff 2018, section 4.2 (arXiv:1608.00507).
"""

from efface.metrics.formula import Metric
from efface.metrics.shared.located import located


def pointing_game(*, tolerance: float = 0.0) -> Metric:
    """1 if a map's largest value lies on the object, otherwise 0. Ties count by their share on the object.

    The maps are taken after `post`. The metric needs the masks of the true objects. Chance is the object's share of the
    image, which is also the score of a map of one value.

    tolerance: distance from the object that still counts, in pixels between centres, at least 0. 15 in the paper.

    Source: Zhang et al. 2018, section 4.2 (arXiv:1608.00507).
    Differs: no tolerance by default; the mean over images, not over classes of the mean of theirs.
    """
    if not tolerance >= 0:
        raise ValueError(f"pointing_game: tolerance is {tolerance}, expected pixels of at least 0; raise it")
    return located(
        "pointing_game",
        "hit",
        "The score is 1 if the pixel that a map ranks first lies on the true object. If the network uses the "
        "object, a truthful map points there.",
        tolerance=float(tolerance),
    )
