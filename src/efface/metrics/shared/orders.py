"""What the erasing metrics share: whose pixels go first, and a value of each image after they went."""

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
    """The given network on the images of a point, erased in each of these orders."""
    return {order: point.perturb(order) for order in orders}


def value_of(scores: Mapping[str, Score], order: Ways, value: str) -> Float[np.ndarray, " n"]:
    """One value of each image, erased in this order: `accuracy` (1 or 0), `probability` or `logit`."""
    return scores[order].values[value].astype(np.float64)


def gap(scores: Mapping[str, Score], high: Ways, low: Ways, value: str) -> Float[np.ndarray, " n"]:
    """The value erased in one order less that in another; 0 for each image where both erase the same."""
    return value_of(scores, high, value) - value_of(scores, low, value)
