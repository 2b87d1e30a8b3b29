"""SRG, the symmetric relevance gain: LeRF less MoRF, and its two halves against a random order.

Of each image and point, for probability and accuracy:
the gain = LeRF - MoRF; its half of the most relevant = random - MoRF; its half of the least relevant = LeRF - random.
The halves add up to the gain. All are 0 where nothing or everything is removed, and 0 on average for a random map.

Settings of its own: none; fill, fractions and unit are the study's, so that MoRF and LeRF share its probes. Each
fraction costs three forward passes of the test images, the random one for all methods together.

Source: Bluecher, Vielhaben & Strodthoff 2024 (Decoupling pixel flipping and occlusion strategy, TMLR); as ABPC in
Samek et al. 2015 and Li et al. 2023 (M4).
Differs: any unit, where theirs are superpixels; the area spans the fractions given, theirs all of 0 to 1.
"""

from collections.abc import Mapping

import numpy as np

from efface.metrics.formula import EVERY, Metric
from efface.metrics.shared.orders import gap, ways
from efface.store.results import Score


def _gains(scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    found = {}
    for name in ("probability", "accuracy"):
        found[name] = gap(scores, "least_first", "most_first", name)
        found[f"{name}_most_relevant"] = gap(scores, "random", "most_first", name)
        found[f"{name}_least_relevant"] = gap(scores, "least_first", "random", name)
    return found


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
    sample="images",
    uses=EVERY,
    caption="What is left when the least relevant pixels are erased, less what is left when the most relevant ones "
    "are. What the fill does by itself is in both and cancels; a random map scores 0 and a truthful one above it. The "
    "halves tell whether a map knows what matters (random order less MoRF) or what does not (LeRF less random).",
)
