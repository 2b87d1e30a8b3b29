"""Local Lipschitz: the largest change of a map, relative to the length of a step away from the image."""

from typing import Literal

from efface.metrics.formula import Metric, values_of
from efface.metrics.shared.effects import check_positive
from efface.metrics.shared.neighbours import Neighbours


def local_lipschitz(
    *, radius: float = 0.02, samples: int = 10, noise: Literal["uniform", "gaussian"] = "uniform"
) -> Metric:
    """Largest distance between the maps of an image and of images around it, divided by the distance of the images.

    `lipschitz` is this value. It grows with the map's scale. `relative` is also divided by the length of the map, so
    that methods of different scale can be compared. The maps are raw and signed, of the same class, with the same
    random numbers of the method. Lengths are Euclidean. A map that ignores the image scores 0. The calls of the method
    are those of `max_sensitivity` with the same settings, so the second metric costs nothing.
    Formula: lipschitz = max over steps of |map(x + step) - map(x)| / |step|; relative = lipschitz / |map(x)|.

    radius: half the width of the uniform noise, or the standard deviation of the Gaussian; above 0, in units of [0, 1].
    samples: images around each image, at least 1. Each costs one call of the method, plus one call at the image.
    noise: uniform or gaussian.

    Source: Alvarez-Melis & Jaakkola 2018 (arXiv:1806.08049).
    Differs: random draws around the image instead of a search for the maximum.
    """
    check_positive("local_lipschitz", radius=radius, samples=samples)
    return Metric(
        probes=lambda _: {"near": Neighbours(radius, samples, noise)},
        value=values_of("near", relative="relative_slope", lipschitz="slope"),
        direction={"relative": "lower", "lipschitz": "lower"},
        sample="images",
        uses=frozenset(),
        caption="The method runs again on images nearby. Shown is the largest change of its map, divided by the length "
        "of the step. A stable map changes little; a map that ignores the image does not change at all.",
        family="robustness",
        axis="",
    )
