"""Max-sensitivity: how far a map moves when the image changes by almost nothing."""

from efface.metrics.formula import Metric
from efface.metrics.shared.effects import positive
from efface.metrics.shared.neighbours import Neighbours


def max_sensitivity(*, radius: float = 0.02, samples: int = 10) -> Metric:
    """Largest and mean distance between the map of an image and of images around it, relative to the map's own length.

    The method is asked again at image + uniform noise in [-radius, radius] of every channel, about the same class and
    with the same draws of its own; its maps are taken raw, signed, whatever `post` says. Noisy images may leave [0, 1].
    0 for a map that does not depend on the image (the gradient of a linear network, but also one that is blind to
    everything): it tells stable maps, not true ones. A network that itself bends sharply has no stable true map.
    NaN for a map of zeros.

    radius: half the width of the noise, above 0, in units of [0, 1].
    samples: images around each, at least 1; each costs one call of the method, and one more is made at the image. The
        largest of few draws is a lower bound of the maximum, and grows with them.

    Source: Yeh, Hsieh, Suggala, Inouye & Ravikumar 2019 (arXiv:1901.09392); the relative form is that
        of their experiments.
    Differs: random draws, as in their code, instead of a search for the maximum.
    """
    positive("max_sensitivity", radius=radius, samples=samples)
    return Metric(
        probes=lambda _: {"near": Neighbours(radius, samples, "uniform")},
        value=lambda scores: {name: scores["near"].values[name] for name in ("max", "mean")},
        direction={"max": "lower", "mean": "lower"},
        sample="images",
        uses=frozenset(),
        caption="The method is asked again at images that differ by faint noise. A stable map hardly moves; a map that "
        "is blind to the image does not move either.",
        family="robustness",
        axis="",
        points_for=lambda _: (0.0,),
    )
