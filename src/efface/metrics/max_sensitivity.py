"""Max-sensitivity: how far a map moves when the image changes very little."""

from efface.metrics.formula import Metric, values_of
from efface.metrics.shared.effects import check_positive
from efface.metrics.shared.neighbours import Neighbours


def max_sensitivity(*, radius: float = 0.02, samples: int = 10) -> Metric:
    """Largest and mean distance between the maps of an image and of images around it, relative to the map's length.

    The method runs again on image + uniform noise in [-radius, radius] of every channel. It explains the same class
    with the same random numbers. The maps are raw and signed; `post` is not used. Noisy images may leave [0, 1]. The
    value is 0 for a map that does not depend on the image: for the gradient of a linear network, but also for a method
    that ignores the image and the network. It shows stable maps, not true ones. If the network itself changes sharply,
    its true map is not stable. NaN for a map of zeros.
    Formula: |map(x + noise) - map(x)| / |map(x)|, its maximum and its mean over the noise.

    radius: half the width of the noise, above 0, in units of [0, 1].
    samples: images around each image, at least 1. Each costs one call of the method, plus one call at the image. The
        largest of few draws is a lower bound of the maximum. It grows with their number.

    Source: Yeh, Hsieh, Suggala, Inouye & Ravikumar 2019 (arXiv:1901.09392); the relative form is that
        of their experiments.
    Differs: random draws, as in their code, instead of a search for the maximum.
    """
    check_positive("max_sensitivity", radius=radius, samples=samples)
    return Metric(
        probes=lambda _: {"near": Neighbours(radius, samples, "uniform")},
        value=values_of("near", "max", "mean"),
        direction={"max": "lower", "mean": "lower"},
        sample="images",
        uses=frozenset(),
        caption="The method runs again on images that differ by faint noise. A stable map hardly moves; a map that "
        "ignores the image does not move either.",
        family="robustness",
        axis="",
    )
