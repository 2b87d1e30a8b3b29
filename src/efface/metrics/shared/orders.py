"""Helpers of the erasing metrics: the probes of each erasing order, and a value of each image after erasing."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Float

from efface.metrics.formula import Point
from efface.metrics.probes import Perturb
from efface.store.results import Score
from efface.types import Order

Ways = Literal["most_first", "least_first", "random"]


def ways(point: Point, *orders: Order | Literal["random"]) -> dict[str, Perturb]:
    """Return a probe of the given network on the images of a point for each of these erasing orders."""
    return {order: point.perturb(order) for order in orders}


def value_of(scores: Mapping[str, Score], order: Ways, value: str) -> Float[np.ndarray, " n"]:
    """Return one value of each image after erasing in this order: `accuracy` (1 or 0), `probability` or `logit`."""
    return scores[order].values[value].astype(np.float64)


def gap(scores: Mapping[str, Score], high: Ways, low: Ways, value: str) -> Float[np.ndarray, " n"]:
    """Return the value after erasing in one order minus that in another. It is 0 if both orders erase the same."""
    return value_of(scores, high, value) - value_of(scores, low, value)
