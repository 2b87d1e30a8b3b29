"""Sensitivity-n: whether what a map gives to n pixels goes with the fall of the score when these n are erased."""

from efface import draws
from efface.metrics.formula import EVERY, Metric
from efface.metrics.shared.effects import positive
from efface.metrics.shared.subsets import Subsets
from efface.types import Images, Mask, Seeds, TargetScore

TENTHS = tuple(round(0.1 * k, 1) for k in range(1, 10))


def sensitivity_n(*, samples: int = 10, score: TargetScore = "logit") -> Metric:
    """Correlation, over random sets of n pixels, of the map's sum over the set with the fall of the score without it.

    For each fraction (0.1 to 0.9 unless `fractions` says otherwise) and each image: `samples` sets of exactly that part
    of the units, Pearson's correlation of the pairs. 1 at every fraction for a map that says what each pixel
    contributes, on a network that adds these up; a map's scale and an equal shift of all its pixels change nothing.
    NaN where the map or the score does not vary over the sets: a constant map has no value.

    The map is signed, its channels summed; `post: [absolute, channel_sum]` for the absolute variant. What stands where
    a pixel is erased is `imputer`: the data set's mean colour unless said otherwise (0 after the usual normalisation),
    efface.impute.constant for black, efface.metrics.sensitivity_n.uniform for random colours.

    samples: sets of an image at each fraction, at least 3; each costs one forward pass. Few are noise for an image;
        the mean over images is not biased by it at 0, but pulled there: at 10 draws a true 0.9 shows as about 0.89.
    score: the score, of the class explained: logit, log_probability, probability or loss (cross entropy).

    Source: Ancona, Ceolini, Oztireli & Gross 2018 (arXiv:1711.06104); the fractions, ten draws and both
        references from the released code of Yang, Wang & Bilgic 2023.
    Differs: sets have exactly n pixels, as in the paper; the code draws each pixel by itself. References are in [0, 1].
    """
    at_least_three("sensitivity_n", samples)
    return Metric(
        probes=lambda point: {"subsets": Subsets(point.x, samples, 0, score, point.imputer, point.post, point.unit)},
        value=lambda scores: {"correlation": scores["subsets"].values["pearson"]},
        direction={"correlation": "higher"},
        sample="images",
        uses=EVERY,
        caption="Random sets of pixels are erased. The more a truthful map gives to a set, the further the score falls "
        "without it: the correlation over the sets nears 1.",
        family="faithfulness",
        defaults={"imputer": "efface.impute.channel_mean", "post": ["efface.erase.post.channel_sum"]},
        axis="fraction removed",
        points_for=lambda _: TENTHS,
        summary="mean",
    )


def uniform(images: Images, removed: Mask, *, seeds: Seeds) -> Images:  # noqa: ARG001
    """An imputer: each channel of each pixel drawn evenly from [0, 1), anew for each set. seeds: one an image."""
    return draws.uniform(seeds, tuple(images.shape[1:])).to(images.dtype)


def at_least_three(where: str, samples: int) -> None:
    """Two points always lie on a line."""
    positive(where, samples=samples)
    if samples < 3:
        raise ValueError(
            f"{where}: samples is {samples}; expected at least 3, two points always lie on a line: raise it"
        )
