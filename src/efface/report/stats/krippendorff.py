"""Krippendorff's alpha: agreement of raters on units."""

from typing import Literal

import numpy as np
from jaxtyping import Float


def krippendorff_alpha(
    values: Float[np.ndarray, "raters units"], scale: Literal["nominal", "ordinal", "interval"] = "ordinal"
) -> float:
    """Agreement of raters on units beyond chance, 1 at best, 0 for chance.

    NaN values are missing. A unit with fewer than two values does not count. The result is NaN if all values are equal,
    or if no two values can be paired.

    Formula: 1 - observed disagreement / expected disagreement.

    scale: disagreement of two values. nominal: 1 if they differ, else 0; ordinal: the squared number of values between
        them, including half of the values equal to them; interval: their squared difference.

    Source: Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section D.
    """
    raters, units = values.shape
    known = ~np.isnan(values)
    places, which = np.unique(values[known], return_inverse=True)
    unit = np.broadcast_to(np.arange(units), (raters, units))[known]
    size = max(1, len(places))
    counts = np.bincount(unit * size + which, minlength=units * size).reshape(units, size)
    return alpha_of_counts(counts.astype(np.float64), places if len(places) else np.zeros(1), scale)


def alpha_of_counts(counts: np.ndarray, places: np.ndarray, scale: str) -> float:
    """Return Krippendorff's alpha of the counts of each value (second axis) for each unit (first axis)."""
    counts = counts * (counts.sum(axis=1, keepdims=True) > 1)  # units with pairs
    of_unit, of_value = counts.sum(axis=1), counts.sum(axis=0)
    n = of_value.sum()
    if n == 0:
        return np.nan
    if scale == "nominal":
        alike = of_unit**2 - (counts**2).sum(axis=1)
        expected = n**2 - (of_value**2).sum()
    else:
        # The number of values between two values (with half of the equal ones) is the difference of their positions in
        # the sorted pool.
        where = np.cumsum(of_value) - of_value / 2 if scale == "ordinal" else places
        where = where - of_value @ where / n
        alike = 2 * (of_unit * (counts @ where**2) - (counts @ where) ** 2)
        expected = 2 * n * (of_value @ where**2)
    observed = np.divide(alike, of_unit - 1, out=np.zeros(len(of_unit)), where=of_unit > 1).sum()
    return float(1 - (n - 1) * observed / expected) if expected > 0 else np.nan
