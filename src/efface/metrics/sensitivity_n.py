"""Sensitivity-n: correlation of the map's sum over n pixels with the fall of the score when these pixels are erased."""

from efface.base import draws
from efface.base.types import Images, Mask, Seeds, TargetScore
from efface.metrics.formula import EVERY, Metric, values_of
from efface.metrics.shared.effects import check_positive
from efface.metrics.shared.subsets import Subsets

TENTHS = tuple(round(0.1 * k, 1) for k in range(1, 10))


def sensitivity_n(*, samples: int = 10, score: TargetScore = "logit") -> Metric:
    """Correlation, over random sets of n pixels, of the map's sum over a set with the fall of the score without it.

    It is Pearson's correlation over `samples` sets, for each fraction (default: 0.1 to 0.9) and each image. A set has
    exactly that part of the units. It is 1 at every fraction for a map of each pixel's contribution, on a network that
    adds up contributions. The scale of a map and an equal shift of all its pixels change nothing. NaN if the map or the
    score does not vary over the sets, so a constant map has no value.

    The map is signed and its channels are summed. The absolute variant is `post: [absolute, channel_sum]`. `imputer`
    fills erased pixels: by default with the data set's mean colour (0 after the usual normalisation),
    efface.impute.constant with black, efface.metrics.sensitivity_n.uniform with random colours.

    samples: sets of each image at each fraction, at least 3. Each costs one forward pass. Few sets are noisy for an
        image. The mean over images is not biased at a true 0, but is pulled to 0: with 10 draws a true 0.9 shows as
        about 0.89.
    score: score of the explained class: logit, log_probability, probability or loss (cross entropy).

    Source: Ancona, Ceolini, Öztireli & Gross 2018 (arXiv:1711.06104); the fractions, ten draws and both
        references from the released code of Yang et al., ICLR 2023.
    Differs: sets have exactly n pixels, as in the paper; the code draws each pixel by itself. References are in [0, 1].
    """
    at_least_three("sensitivity_n", samples)
    return Metric(
        probes=lambda point: {"subsets": Subsets(point.x, samples, 0, score, point.imputer, point.post, point.unit)},
        value=values_of("subsets", correlation="pearson"),
        direction={"correlation": "higher"},
        ranges={"correlation": (-1.0, 1.0)},
        sample="images",
        uses=EVERY,
        caption="Random sets of pixels are erased. The larger the sum of a truthful map over a set, the further the "
        "score falls without it. The correlation over the sets is then near 1.",
        family="faithfulness",
        defaults={"imputer": "efface.impute.channel_mean", "post": ["efface.erase.post.channel_sum"]},
        axis="fraction removed",
        points_for=lambda _: TENTHS,
        summary="mean",
    )


def uniform(images: Images, removed: Mask, *, seeds: Seeds) -> Images:  # noqa: ARG001
    """Imputer that draws each channel of each pixel evenly from [0, 1), for each set separately.

    seeds: one for each image.
    """
    return draws.uniform(seeds, tuple(images.shape[1:])).to(images.dtype)


def at_least_three(where: str, samples: int) -> None:
    """Raise ValueError for fewer than 3 samples, since two points always lie on a line."""
    check_positive(where, samples=samples)
    if samples < 3:
        raise ValueError(
            f"{where}: samples is {samples}; expected at least 3, since two points always lie on a line: raise it"
        )
