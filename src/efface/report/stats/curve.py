"""A method's curve on a metric, and its area."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

Better = Literal["higher", "lower", "none"]
Over = Literal["repeats", "images"]


@dataclass(frozen=True)
class Curve:
    """One method's curve on one metric.

    metric: its name in the study, such as "roar".
    score: what the values are: "accuracy", "probability", "relative_change" (percent), ...
    at: the points of the axis, ascending; one point for a metric that is one number.
    values: a sample is a repeat (retrained) or an image (frozen network); NaN where there is none.
    sample: what the samples are.
    direction: which way a truthful map moves the curve; "none" where the metric describes and does not judge.
    pairs: seeds of the repeats or row numbers of the images; two curves are compared where these agree.
    caption: a sentence or two on what the metric erases and what a truthful map does.
    summary: what stands for a curve in a table: the area under it, or the mean of its points, each counting alike.
    axis: what `at` counts, such as "fraction removed", "patches removed", "layers randomised"; "" for one number.
    family: the kind of metric, such as "erasure"; the report's heading.
    missing: points that have not been measured yet: NaN elsewhere means that the metric has no value there. None where
        nobody said.
    may_lack_points: whether a method may have no value at some points: then it is summed up over those that it has.
    empty: points of the axis that were left out of `at`, as no method has a value there; see `without_empty`.
    control: whether the maps are a control's, which knows nothing of the network.
    draw_of: the method that this is another draw of; "" for its first draw, and where there is one.
    """

    metric: str
    score: str
    method: str
    at: tuple[float, ...]
    values: Float[np.ndarray, "samples points"]
    sample: Over
    direction: Better
    pairs: tuple[int, ...] = ()
    caption: str = ""
    axis: str = "fraction removed"
    summary: Literal["area", "mean"] = "area"
    family: str = ""
    missing: tuple[float, ...] | None = None
    may_lack_points: bool = False
    empty: tuple[float, ...] = ()
    control: bool = False
    draw_of: str = ""

    def __post_init__(self) -> None:
        samples, columns = self.values.shape
        where = f"curve {self.metric}/{self.score}/{self.method}"
        if columns != len(self.at):
            raise ValueError(f"{where}: values have {columns} columns for {len(self.at)} points; give one each")
        if not self.at or not np.all(np.isfinite(self.at)) or np.any(np.diff(self.at) <= 0):
            raise ValueError(f"{where}: points {self.at} must be finite and ascend; sort them and name each once")
        if self.pairs and (len(self.pairs) != samples or len(set(self.pairs)) != samples):
            raise ValueError(f"{where}: {len(self.pairs)} pairs for {samples} samples; give each sample one of its own")


def areas(curve: Curve) -> Float[np.ndarray, " samples"]:
    """One number for each sample's curve, of the height of its values: the area under it, or the mean of its points.

    The area is the trapezoid rule's, divided by the span of the axis. The value itself where the curve is one point.
    NaN for a sample of which a point has no value. Of a `may_lack_points` curve the points in `lacking` do not count:
    the area is that of the points that the method has, divided by their span.
    """
    there = _there(curve)
    values, at = curve.values.astype(np.float64), np.array(curve.at)
    if there.any() and not there.all():
        values, at = values[:, there], at[there]
    if curve.summary == "mean" or len(at) == 1:
        return values.mean(axis=1)
    return np.asarray(np.trapezoid(values, at, axis=1)) / (at[-1] - at[0])


def lacking(curve: Curve) -> tuple[float, ...]:
    """Measured points of a `may_lack_points` curve at which the method has no value on any sample."""
    return tuple(at for at, there in zip(curve.at, _there(curve), strict=True) if not there)


def shared(one: Curve, other: Curve) -> tuple[Curve, Curve]:
    """Both curves at the points that both have, so that their areas can be compared; as they are where none lacks any.

    Where they have no point in common, no sample of theirs has two areas.
    """
    both = _there(one) & _there(other)
    if not both.any():  # strict: at each point one of them is NaN throughout
        return replace(one, may_lack_points=False), replace(other, may_lack_points=False)
    return (one, other) if both.all() else (_at(one, both), _at(other, both))


def without_empty(curves: Sequence[Curve]) -> list[Curve]:
    """The curves without the points at which no method has a value on any sample: none can be there.

    Curves of one metric and score are looked at together, and only points count that were measured for one of them at
    least. What is left out stands in `empty`. A curve of which nothing would be left stays as it is.
    """
    together: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        together.setdefault((curve.metric, curve.score), []).append(curve)
    empty = {}
    for what, group in together.items():
        measured = {at for curve in group if curve.missing is not None for at in set(curve.at) - set(curve.missing)}
        valued = {at for curve in group for at in np.array(curve.at)[~np.isnan(curve.values).all(axis=0)].tolist()}
        empty[what] = measured - valued
    return [_without(curve, empty[curve.metric, curve.score]) for curve in curves]


def measure_of(curve: Curve) -> tuple[str, str, tuple[float, ...], Over, Better, str]:
    """What a curve measures: curves in which all of this agrees can be compared."""
    return curve.metric, curve.score, curve.at, curve.sample, curve.direction, curve.summary


def table(curves: Sequence[Curve]) -> tuple[tuple[int, ...], Float[np.ndarray, "rows methods"]]:
    """The rows of any of the curves, ascending, and each curve's areas there; NaN where it has none.

    All over the same points: a `may_lack_points` curve that lacks one has no area here.

    ValueError where the curves measure different things, one method comes twice, or samples have no names.
    """
    first = curves[0]
    for curve in curves:
        if measure_of(curve) != measure_of(first):
            raise ValueError(
                f"curves {measure_of(first)} of {first.method} and {measure_of(curve)} of {curve.method} measure "
                "different things; compare curves of one metric and score"
            )
        if len(curve.values) and not curve.pairs:
            raise ValueError(
                f"curve {curve.metric}/{curve.score}/{curve.method}: its {len(curve.values)} samples have no names to "
                "be paired by; give `pairs`, the seeds of the repeats or the row numbers of the images"
            )
    methods = [curve.method for curve in curves]
    if len(set(methods)) < len(methods):
        raise ValueError(f"{first.metric}/{first.score}: a method has two curves among {methods}; name each once")
    rows = sorted({row for curve in curves for row in curve.pairs})
    found = np.full((len(rows), len(curves)), np.nan)
    for column, curve in enumerate(curves):
        found[np.searchsorted(rows, curve.pairs), column] = areas(replace(curve, may_lack_points=False))
    return tuple(rows), found


def _there(curve: Curve) -> np.ndarray:
    """Which points count: all, but of a partial curve those that have a value, or are still to be measured."""
    if not curve.may_lack_points:
        return np.ones(len(curve.at), dtype=bool)
    return ~np.isnan(curve.values).all(axis=0) | np.isin(curve.at, curve.missing or ())


def _at(curve: Curve, keep: np.ndarray) -> Curve:
    at = tuple(each for each, kept in zip(curve.at, keep, strict=True) if kept)
    missing = None if curve.missing is None else tuple(each for each in curve.missing if each in at)
    return replace(curve, at=at, values=curve.values[:, keep], missing=missing)


def _without(curve: Curve, empty: set[float]) -> Curve:
    keep = np.array([at not in empty for at in curve.at])
    if keep.all() or not keep.any():
        return curve
    gone = tuple(at for at in curve.at if at in empty)
    return replace(_at(curve, keep), empty=tuple(sorted({*curve.empty, *gone})))
