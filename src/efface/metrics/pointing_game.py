"""Pointing game: whether a map's largest value lies on the true object.

Source: Zhang, Bargal, Lin, Brandt, Shen & Sclaroff 2018, section 4.2 (arXiv:1608.00507).
"""

from efface.metrics.formula import Metric
from efface.metrics.shared.located import Located


def pointing_game(*, tolerance: float = 0.0) -> Metric:
    """1 where a map's largest value lies on the object, 0 where not; ties count by their share on it.

    The maps are as `post` makes them; it needs the masks of the true objects. Chance is the object's share of the
    image; a map of one value scores just that.

    tolerance: how far from the object still counts, in pixels between centres, at least 0; 15 in the paper.

    Source: Zhang et al. 2018, section 4.2 (arXiv:1608.00507).
    Differs: no tolerance by default; the mean over images, not over classes of the mean of theirs.
    """
    if not tolerance >= 0:
        raise ValueError(f"pointing_game: tolerance is {tolerance}, expected pixels of at least 0; raise it")
    return Metric(
        probes=lambda point: {"located": Located("pointing_game", point.post, float(tolerance))},
        value=lambda scores: {"hit": scores["located"].values["pointing_game"]},
        direction={"hit": "higher"},
        sample="images",
        uses=frozenset({"post"}),
        caption="Whether the pixel that a map ranks first lies on the true object. A truthful map of a network that "
        "looks at the object points there.",
        family="localisation",
        axis="",
        points_for=lambda _shape: (0.0,),
    )
