"""What the erasing metrics share: whose pixels go first, and a value of each image after they went."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from efface.metrics.formula import EVERY, Better, Metric, Point, frozen_values
from efface.metrics.probes import Perturb
from efface.store.results import Score
from efface.types import Order

Ways = Literal["most_first", "least_first", "random"]


def opposite(better: Better) -> Better:
    """The other way that a truthful map may move a value."""
    return "lower" if better == "higher" else "higher"


def frozen(order: Order, better: Better, caption: str) -> Metric:
    """The given network on images that lose pixels in this order.

    better: which way a truthful map moves its score.
    """
    return Metric(
        probes=lambda point: {"erased": point.perturb(order), "clean": point.clean()},
        value=frozen_values,
        direction=dict.fromkeys(("accuracy", "probability", "logit_ratio"), better)
        | dict.fromkeys(("drop", "relative_change"), opposite(better)),
        by_mean=("drop",),  # AOPC: the mean over the steps, step 0 among them (Samek et al. 2015, equation 12)
        sample="images",
        uses=EVERY,
        caption=caption,
    )


def retrained(order: Order, better: Better, caption: str) -> Metric:
    """A new network on images that lost pixels in this order. better: as for `frozen`."""
    return Metric(
        probes=lambda point: {"erased": point.retrain(order)},
        value=lambda scores: {"accuracy": scores["erased"].mean("accuracy")},
        direction={"accuracy": better},
        sample="repeats",
        uses=EVERY,
        family="retraining",
        caption=caption,
    )


def area(order: Order, better: Better, imputer: str | Mapping[str, Any], caption: str) -> Metric:
    """The area under the curve of the given network, of which a study may choose the `imputer` and the points.

    better: as for `frozen`.
    """
    return Metric(
        probes=lambda point: ways(point, order),
        value=lambda scores: {name: value_of(scores, order, name) for name in ("probability", "accuracy")},
        direction={"probability": better, "accuracy": better},
        sample="images",
        uses=EVERY,
        defaults={"imputer": imputer, "fractions": tuple(step / 20 for step in range(21))},
        caption=caption,
    )


def ways(point: Point, *orders: Order | Literal["random"]) -> dict[str, Perturb]:
    """The given network on the images of a point, erased in each of these orders."""
    return {order: point.perturb(order) for order in orders}


def value_of(scores: Mapping[str, Score], order: Ways, value: str) -> Float[np.ndarray, " n"]:
    """One value of each image, erased in this order: `accuracy` (1 or 0), `probability` or `logit`."""
    return scores[order].values[value].astype(np.float64)


def gap(scores: Mapping[str, Score], high: Ways, low: Ways, value: str) -> Float[np.ndarray, " n"]:
    """The value erased in one order less that in another; 0 for each image where both erase the same."""
    return value_of(scores, high, value) - value_of(scores, low, value)
