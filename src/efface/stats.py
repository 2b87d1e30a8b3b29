"""Curves of a metric, and what can be said about them: means, intervals, areas, paired differences."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit


class Interval(NamedTuple):
    """A mean with its standard deviation and confidence interval; what `n` samples cannot give is NaN."""

    mean: float
    std: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Curve:
    """One method's curve on one metric.

    metric: its name in the study, such as "roar".
    score: what the values are: "accuracy", "probability", "relative_change" (percent), ...
    at: the points of the axis, ascending; one point for a metric that is one number.
    values: a sample is a repeat (retrained) or an image (frozen network); NaN only where a value is not there yet.
    over: what the samples are.
    better: which way a truthful map moves the curve; "none" where the metric describes and does not judge.
    pairs: seeds of the repeats or row numbers of the images; two curves are compared where these agree.
    says: a sentence or two on what the metric erases and what a truthful map does.
    axis: what `at` counts, such as "fraction removed", "patches removed", "layers randomised"; "" for one number.
    """

    metric: str
    score: str
    method: str
    at: tuple[float, ...]
    values: Float[np.ndarray, "samples points"]
    over: Literal["repeats", "images"]
    better: Literal["higher", "lower", "none"]
    pairs: tuple[int, ...] = ()
    says: str = ""
    axis: str = "fraction removed"

    def __post_init__(self) -> None:
        samples, columns = self.values.shape
        where = f"curve {self.metric}/{self.score}/{self.method}"
        if columns != len(self.at):
            raise ValueError(f"{where}: values have {columns} columns for {len(self.at)} points; give one each")
        if not self.at or not np.all(np.isfinite(self.at)) or np.any(np.diff(self.at) <= 0):
            raise ValueError(f"{where}: points {self.at} must be finite and ascend; sort them and name each once")
        if self.pairs and (len(self.pairs) != samples or len(set(self.pairs)) != samples):
            raise ValueError(f"{where}: {len(self.pairs)} pairs for {samples} samples; give each sample one of its own")


def interval(values: Float[np.ndarray, " samples"], level: float = 0.95) -> Interval:
    """Mean of the values that are there, with Student's t interval of the mean.

    For many samples this is the normal interval. One sample has a mean only.

    level: probability that the interval covers the true mean, in (0, 1).
    """
    values = values[~np.isnan(values)].astype(np.float64)
    n = len(values)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, np.nan, 0)
    mean = float(values.mean())
    if n == 1:
        return Interval(mean, np.nan, np.nan, np.nan, 1)
    std = float(values.std(ddof=1))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * std / n**0.5
    return Interval(mean, std, mean - half, mean + half, n)


def areas(curve: Curve) -> Float[np.ndarray, " samples"]:
    """Area under each sample's curve by the trapezoid rule, divided by the span of the axis: a mean height.

    The value itself where the curve is one point. NaN for a sample of which a point is not there yet.
    """
    if len(curve.at) == 1:
        return curve.values[:, 0].astype(np.float64)
    values = curve.values.astype(np.float64)
    return np.asarray(np.trapezoid(values, curve.at, axis=1)) / (curve.at[-1] - curve.at[0])


def difference(curve: Curve, other: Curve, level: float = 0.95) -> Interval:
    """Interval of the mean area difference curve - other over the samples that both have, by `pairs`.

    level: as in `interval`.
    """
    ours, theirs = (curve.metric, curve.score, curve.at), (other.metric, other.score, other.at)
    if ours != theirs:
        raise ValueError(f"curves {ours} and {theirs} measure different things; compare curves of one metric and score")
    _, mine, its = np.intersect1d(curve.pairs, other.pairs, return_indices=True)
    return interval(areas(curve)[mine] - areas(other)[its], level)
