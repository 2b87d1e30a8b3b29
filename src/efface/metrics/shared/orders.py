"""Helpers of the erasing metrics: metrics of one erasing order, the probes of each order, and values after erasing."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from efface.base.types import Order
from efface.metrics.formula import EVERY, Better, Metric, Point, frozen_values
from efface.metrics.probes import Perturb
from efface.store.results import Score

UNIT, SIGNED = (0.0, 1.0), (-1.0, 1.0)
"""Ranges of a share, and of a difference of two shares."""
Ways = Literal["most_first", "least_first", "random"]


def opposite(better: Better) -> Better:
    """Return the other direction in which a truthful map may move a value."""
    return "lower" if better == "higher" else "higher"


def frozen(order: Order, better: Better, caption: str) -> Metric:
    """Return a metric of the given network on images without pixels, erased in this order.

    better: the direction in which a truthful map moves the score.
    """
    return Metric(
        probes=lambda point: {"erased": point.perturb(order), "clean": point.clean()},
        value=frozen_values,
        direction=dict.fromkeys(("accuracy", "probability", "logit_ratio"), better)
        | dict.fromkeys(("drop", "relative_change"), opposite(better)),
        ranges={"accuracy": UNIT, "probability": UNIT, "drop": SIGNED},
        by_mean=("drop",),  # AOPC: the mean over the steps, step 0 among them (Samek et al. 2015, equation 12)
        sample="images",
        uses=EVERY,
        caption=caption,
    )


def retrained(order: Order, better: Better, caption: str) -> Metric:
    """Return a metric of a new network, trained on images without pixels, erased in this order.

    better: as for `frozen`.
    """
    return Metric(
        probes=lambda point: {"erased": point.retrain(order)},
        value=lambda scores: {"accuracy": scores["erased"].values["accuracy"].astype(np.float64)},
        direction={"accuracy": better},
        ranges={"accuracy": UNIT},
        sample="repeats",
        uses=EVERY,
        family="retraining",
        outline="removed" if order == "most_first" else "kept",
        caption=caption,
    )


def area(order: Order, better: Better, imputer: str | Mapping[str, Any], caption: str) -> Metric:
    """Return the metric of the area under the curve of the given network. A study may change `imputer` and `fractions`.

    better: as for `frozen`.
    """
    return Metric(
        probes=lambda point: ways(point, order),
        value=lambda scores: {name: value_of(scores, order, name) for name in ("probability", "accuracy")},
        direction={"probability": better, "accuracy": better},
        ranges={"probability": UNIT, "accuracy": UNIT},
        sample="images",
        uses=EVERY,
        defaults={"imputer": imputer, "fractions": tuple(step / 20 for step in range(21))},
        caption=caption,
    )


def ways(point: Point, *orders: Order | Literal["random"]) -> dict[str, Perturb]:
    """Return a probe of the given network on the images of a point for each of these erasing orders."""
    return {order: point.perturb(order) for order in orders}


def value_of(scores: Mapping[str, Score], order: Ways, value: str) -> Float[np.ndarray, " n"]:
    """Return one value of each image after erasing in this order: `accuracy` (1 or 0), `probability` or `logit`."""
    return scores[order].values[value].astype(np.float64)


def gap(scores: Mapping[str, Score], high: Ways, low: Ways, value: str) -> Float[np.ndarray, " n"]:
    """Return the value after erasing in one order minus that in another. It is 0 if both orders erase the same."""
    return value_of(scores, high, value) - value_of(scores, low, value)
