"""An interval of a mean, and Student's."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Interval(NamedTuple):
    """A mean of `n` samples, standard deviation and confidence interval; NaN for numbers that need more samples."""

    mean: float
    std: float
    low: float
    high: float
    n: int


NOTHING = Interval(np.nan, np.nan, np.nan, np.nan, 0)
"""No sample."""


def interval(values: Float[np.ndarray, " samples"], level: float = 0.95) -> Interval:
    """Mean of the values that are not NaN, with Student's t interval of the mean.

    For many samples this is the normal interval. One sample has only a mean.

    level: probability that the interval covers the true mean, in (0, 1).
    """
    from scipy.special import stdtrit

    values = values[~np.isnan(values)].astype(np.float64)
    n = len(values)
    if n == 0:
        return NOTHING
    mean = float(values.mean())
    if n == 1:
        return Interval(mean, np.nan, np.nan, np.nan, 1)
    std = float(values.std(ddof=1))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * std / n**0.5
    return Interval(mean, std, mean - half, mean + half, n)
