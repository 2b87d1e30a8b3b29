"""DiffID: the score without the least relevant pixels, minus the score without the most relevant ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from efface.metrics.formula import EVERY, Metric, logit_ratio
from efface.metrics.shared.orders import SIGNED, gap, ways
from efface.store.results import Score

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def diffid(*, elementwise: bool = False) -> Metric:
    """LeRF minus MoRF of accuracy, logit ratio and probability, with the mean of the kept pixels as fill.

    Three values of each image and point: accuracy, the explained class's logit divided by that of the whole image, and
    the probability of the explained class. Each is the value after LeRF minus the value after MoRF. LeRF keeps the most
    relevant pixels and is "insertion" in the paper; MoRF is "deletion". A random map scores 0 on average. The summary
    is the mean of the points.

    elementwise: rank and remove single channel values, and fill with one mean over all kept values. Otherwise: pixels,
        with a mean for each channel. The original is `elementwise: true` with `post: [absolute, channel_sum]`:
        its map has one value a pixel, and a pixel's channels are tied.
    `fractions`: 0.1 to 0.9. Each costs two forward passes of the test images.

    Source: Yang, Akhtar, Wen, Shah & Mian, ICLR 2023, "Re-calibrating feature attributions for model interpretation".
    Differs: no logit ratio for an image whose clean logit is not positive, where the original's flips its sign; the
    class is the explained one (the true one with `explain: true`); ties by a shuffle; means are taken in [0, 1], not
    after normalisation, where one number for all channels is a colour of [0, 1].
    """
    fill: Any = (
        {"call": "efface.impute.kept_mean", "kwargs": {"over": "image"}} if elementwise else "efface.impute.kept_mean"
    )
    return Metric(
        probes=lambda point: ways(point, "most_first", "least_first") | {"clean": point.clean()},
        value=_differences,
        direction={"accuracy": "higher", "logit_ratio": "higher", "probability": "higher"},
        ranges={"accuracy": SIGNED, "probability": SIGNED},
        sample="images",
        uses=EVERY,
        defaults={"imputer": fill, "unit": "feature" if elementwise else "pixel", "fractions": FRACTIONS},
        points_for=lambda _: FRACTIONS,
        summary="mean",
        caption="The score of the given network on images that keep the pixels that a map ranks highest, minus its "
        "score on images that lose them. The cost of any removal cancels. A random map scores 0, a truthful map more.",
    )


def _differences(scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    ratios = [logit_ratio(scores[order], scores["clean"]) for order in ("least_first", "most_first")]
    return {
        "accuracy": gap(scores, "least_first", "most_first", "accuracy"),
        "logit_ratio": ratios[0] - ratios[1],
        "probability": gap(scores, "least_first", "most_first", "probability"),
    }
