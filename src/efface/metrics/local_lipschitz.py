"""Local Lipschitz: the steepest change of a map for the length of a step away from the image."""

from typing import Literal

from efface.metrics.formula import Metric
from efface.metrics.shared.effects import positive
from efface.metrics.shared.neighbours import Neighbours


def local_lipschitz(
    *, radius: float = 0.02, samples: int = 10, noise: Literal["uniform", "gaussian"] = "uniform"
) -> Metric:
    """Largest distance between the map of an image and of images around it, divided by the distance of the images.

    `lipschitz` is that, and grows with the map's scale; `relative` is divided by the map's own length as well, so
    methods of different scale can be compared. The same calls of the method as max_sensitivity at the same settings:
    it costs nothing once that ran. Raw, signed maps, the same class, the same draws of the method's own. Euclidean
    lengths. A map that is blind to the image gets 0.

    radius: half the width of the uniform noise, or the standard deviation of the Gaussian; above 0, in units of [0, 1].
    samples: images around each, at least 1; each costs one call of the method, and one more is made at the image.
    noise: uniform or gaussian.

    Source: Alvarez-Melis & Jaakkola 2018 (arXiv:1806.08049).
    Differs: random draws around the image instead of a search for the maximum.
    """
    positive("local_lipschitz", radius=radius, samples=samples)
    return Metric(
        probes=lambda _: {"near": Neighbours(radius, samples, noise)},
        value=lambda scores: {
            "relative": scores["near"].values["relative_slope"],
            "lipschitz": scores["near"].values["slope"],
        },
        direction={"relative": "lower", "lipschitz": "lower"},
        sample="images",
        uses=frozenset(),
        caption="The method is asked again at images close by; shown is the largest change of its map for the length "
        "of the step. A stable map changes little; a map that is blind to the image does not change at all.",
        family="robustness",
        axis="",
        points_for=lambda _: (0.0,),
    )
