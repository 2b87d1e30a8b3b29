"""SRG, the symmetric relevance gain: LeRF minus MoRF, and the difference of each from a random order.

Values of each image and point, for probability and accuracy:
gain = LeRF - MoRF; half of the most relevant = random - MoRF; half of the least relevant = LeRF - random.
The halves add up to the gain. All are 0 if nothing or everything is removed, and 0 on average for a random map.

Settings of its own: none. Fill, fractions and unit are the study's, so that MoRF and LeRF share its probes. Each
fraction costs three forward passes of the test images. All methods share the pass in random order.

Source: Blücher, Vielhaben & Strodthoff 2024 (Decoupling pixel flipping and occlusion strategy, TMLR); as ABPC in
Samek et al. 2015 and Li et al. 2023 (M4).
Differs: any unit, where theirs are superpixels; the area spans the fractions given, theirs all of 0 to 1. With
superpixels (`unit: superpixel`) the area is over the share of superpixels removed, theirs over the share of pixels.
"""

from collections.abc import Mapping

import numpy as np

from efface.metrics.formula import EVERY, Metric
from efface.metrics.shared.orders import SIGNED, gap, ways
from efface.store.results import Score


def _gains(scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    gains = {}
    for name in ("probability", "accuracy"):
        gains[name] = gap(scores, "least_first", "most_first", name)
        gains[f"{name}_most_relevant"] = gap(scores, "random", "most_first", name)
        gains[f"{name}_least_relevant"] = gap(scores, "least_first", "random", name)
    return gains


srg = Metric(
    probes=lambda point: ways(point, "most_first", "least_first", "random"),
    value=_gains,
    direction=dict.fromkeys(
        [
            "probability",
            "accuracy",
            "probability_most_relevant",
            "probability_least_relevant",
            "accuracy_most_relevant",
            "accuracy_least_relevant",
        ],
        "higher",
    ),
    ranges=dict.fromkeys(
        (f"{name}{half}" for name in ("probability", "accuracy") for half in ("", "_most_relevant", "_least_relevant")),
        SIGNED,
    ),
    sample="images",
    uses=EVERY,
    caption="The score without the least relevant pixels, minus the score without the most relevant ones. The effect "
    "of the fill cancels. A random map scores 0, a truthful map more. The halves show whether a map finds the pixels "
    "that matter (random order minus MoRF) or those that do not (LeRF minus random order).",
)
