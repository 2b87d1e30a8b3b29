"""ROAD, remove and debias: MoRF and LeRF with a fill that hides the removed pixels, without retraining.

Values of each image and point, after MoRF and after LeRF: whether it is classified right, and the probability of the
explained class.
Formula: combined = (LeRF - MoRF) / 2.

Settings of its own: none.
`imputer`: noisy linear imputation, which causes most of the cost on large images.
`fractions`: the paper's. Each costs two forward passes of the test images.

Source: Rong et al. 2022 (arXiv:2202.00449); combined as in Gildenblat's pytorch-grad-cam.
Differs: ties by a shuffle of each image's own seed, where the code adds one noise map to all images; `fraction` is
always the part removed, where its LeRF counts what is kept.
"""

from collections.abc import Mapping

import numpy as np

from efface.metrics.formula import EVERY, Metric
from efface.metrics.shared.orders import UNIT, gap, value_of, ways
from efface.store.results import Score


def _values(scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    values = {}
    for name, combined in (("accuracy", "combined"), ("probability", "probability_combined")):
        values[combined] = gap(scores, "least_first", "most_first", name) / 2
        values[f"{name}_most_first"] = value_of(scores, "most_first", name)
        values[f"{name}_least_first"] = value_of(scores, "least_first", name)
    return values


road = Metric(
    probes=lambda point: ways(point, "most_first", "least_first"),
    value=_values,
    direction={
        "combined": "higher",
        "accuracy_most_first": "lower",
        "accuracy_least_first": "higher",
        "probability_combined": "higher",
        "probability_most_first": "lower",
        "probability_least_first": "higher",
    },
    ranges={"combined": (-0.5, 0.5), "probability_combined": (-0.5, 0.5)}
    | {f"{name}_{order}_first": UNIT for name in ("accuracy", "probability") for order in ("most", "least")},
    sample="images",
    uses=EVERY,
    defaults={"imputer": "efface.impute.noisy_linear", "fractions": (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)},
    caption="Removed pixels are filled from their neighbours with a little noise, so that neither a foreign colour nor "
    "the outline of the removed pixels indicates a class. With a truthful map, accuracy falls early without the most "
    "relevant pixels and late without the least relevant ones. Combined is half the difference.",
)
