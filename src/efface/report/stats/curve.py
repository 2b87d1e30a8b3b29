"""Curves of methods on metrics, and their areas."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from efface.base.types import Knows

Better = Literal["higher", "lower", "none"]
Over = Literal["repeats", "images"]
Rule = Literal["betting", "spending"]


class Looks(NamedTuple):
    """The moments at which a study that measures in rounds looks at its numbers and may stop.

    after: numbers of samples, ascending; the last one is all that were planned.
    by: how a test allows for several looks. `betting`: see `betting`, for scores with a known range over images; others
        are tested by `spending`: every look has the same level, and all together that of the study.
    level: probability that any decision of the study is wrong.
    """

    after: tuple[int, ...]
    by: Rule
    level: float = 0.05


@dataclass(frozen=True)
class Curve:
    """One method's curve on one metric.

    metric: name of the metric in the study, such as "roar".
    score: name of the values: "accuracy", "probability", "relative_change", ...
    method: name of the method.
    at: points of the axis, ascending; one point for a metric that is one number.
    values: values by sample and point; NaN if there is no value. A sample is a repeat (retrained) or an image (frozen
        network).
    sample: kind of the samples.
    direction: direction in which a truthful map moves the curve; "none" if the metric only describes.
    pairs: seeds of the repeats or row numbers of the images. Two curves are compared on the pairs that both have.
    caption: one or two sentences on the erasure of the metric and on the curve of a truthful map.
    axis: quantity of `at`, such as "fraction removed", "patches removed", "layers randomised"; "" for one number.
    summary: number for a curve in a table: the area under it, or the mean of its points with equal weights.
    family: family of the metric, such as "erasure", which is a heading of the report.
    missing: points that have not been measured yet. At other points, NaN means that the metric has no value. None: not
        known.
    failed: one line on why the method failed; "" if it did not.
    may_lack_points: True if a method may have no value at some points. The summary then uses the points that exist.
    empty: points that were left out of `at`, for no method has a value there; see `without_empty`.
    control: True if the maps belong to a control, which is no explanation of the network.
    knows: what a control knows of the network: nothing, the response that the metric measures, or the exact map.
    draw_of: name of the method that this curve is another draw of; "" for the first or only draw.
    twin_of: name of the method whose blurred maps this curve belongs to; "" for the maps themselves.
    opposite: name of the metric that erases in the opposite order, with the same settings; "" if the study has none.
    value_unit: unit of the values, such as "%"; "" if they have none.
    bounds: smallest and largest possible value; None if unknown.
    images: for repeats, the value of each test image at each point, whose means are `values`; None if unknown.
    by_draw: for the mean over several draws of a method's maps, the values of each draw; None for one draw.
    trained: what a repeat is: a training of one network on changed images, or a network of its own.
    looks: for a study that measures in rounds, the moments at which it may stop. The samples are then in the order in
        which they are measured. None: the number of samples was fixed before.
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
    failed: str = ""
    may_lack_points: bool = False
    empty: tuple[float, ...] = ()
    control: bool = False
    knows: Knows = "nothing"
    draw_of: str = ""
    twin_of: str = ""
    opposite: str = ""
    value_unit: str = ""
    bounds: tuple[float, float] | None = None
    images: Float[np.ndarray, "samples points images"] | None = None
    by_draw: Float[np.ndarray, "draws samples points"] | None = None
    trained: Literal["trainings", "networks"] = "trainings"
    looks: Looks | None = None

    def __post_init__(self) -> None:
        samples, columns = self.values.shape
        where = f"curve {self.metric}/{self.score}/{self.method}"
        if columns != len(self.at):
            raise ValueError(f"{where}: values have {columns} columns for {len(self.at)} points; give one each")
        if not self.at or not np.all(np.isfinite(self.at)) or np.any(np.diff(self.at) <= 0):
            raise ValueError(f"{where}: points {self.at} must be finite and ascend; sort them and name each once")
        if self.pairs and (len(self.pairs) != samples or len(set(self.pairs)) != samples):
            raise ValueError(f"{where}: {len(self.pairs)} pairs for {samples} samples; give each sample one of its own")
        if self.images is not None and self.images.shape[:2] != self.values.shape:
            raise ValueError(
                f"{where}: images have shape {self.images.shape} for {samples} samples and {columns} points; give "
                "samples x points x images"
            )

    @cached_property
    def area_of_each(self) -> Float[np.ndarray, " samples"]:
        """The number of each sample, see `areas`."""
        return _summed(self, self.values)

    @cached_property
    def area_of_images(self) -> Float[np.ndarray, "samples images"] | None:
        """The number of each repeat and test image, see `image_areas`."""
        return None if self.images is None else _summed(self, self.images)

    @property
    def over(self) -> str:
        """What an interval of a mean of this curve is over, in words."""
        over: str = "images" if self.sample == "images" else self.trained
        if self.sample == "repeats" and self.images is not None:
            over += " and images"
        return over + (" and draws" if self.by_draw is not None else "")


def areas(curve: Curve) -> Float[np.ndarray, " samples"]:
    """Return one number for the curve of each sample, on the scale of its values: its area, or the mean of its points.

    The area follows the trapezoid rule and is divided by the span of the axis. For one point it is the value itself.
    A sample without a value at some point has NaN. In a `may_lack_points` curve, the points in `lacking` do not count:
    the area is that of the other points, divided by their span.
    """
    return curve.area_of_each


def image_areas(curve: Curve) -> Float[np.ndarray, "samples images"] | None:
    """Return the number of `areas` for each repeat and test image; None if the values of the images are unknown."""
    return curve.area_of_images


def draw_areas(curve: Curve) -> Float[np.ndarray, "draws samples"] | None:
    """Return the number of `areas` for each draw of a method's maps and sample; None for one draw."""
    if curve.by_draw is None:
        return None
    return np.stack([_summed(curve, draw) for draw in curve.by_draw])


def _summed(curve: Curve, values: np.ndarray) -> np.ndarray:
    """Return the area, or the mean of the points, of values of samples x points (x images)."""
    known = _has_values(curve)
    values, at = values.astype(np.float64), np.array(curve.at)
    if known.any() and not known.all():
        values, at = values[:, known], at[known]
    if curve.summary == "mean" or len(at) == 1:
        return np.asarray(values.mean(axis=1))
    return np.asarray(np.trapezoid(values, at, axis=1)) / (at[-1] - at[0])


def lacking(curve: Curve) -> tuple[float, ...]:
    """Return the measured points of a `may_lack_points` curve at which the method has no value on any sample."""
    return tuple(at for at, known in zip(curve.at, _has_values(curve), strict=True) if not known)


def shared(one: Curve, other: Curve) -> tuple[Curve, Curve]:
    """Return both curves at the points that both have, so that their areas can be compared.

    Curves that lack no point are not changed. If they have no point in common, no sample has an area on both curves.
    """
    if not one.may_lack_points and not other.may_lack_points:
        return one, other
    both = _has_values(one) & _has_values(other)
    if not both.any():  # strict: at each point one of them is NaN throughout
        return replace(one, may_lack_points=False), replace(other, may_lack_points=False)
    return (one, other) if both.all() else (_at(one, both), _at(other, both))


def at_points(curve: Curve, points: Collection[float]) -> Curve:
    """Return the curve at those of its points that are among `points`; they must not be none."""
    return _at(curve, np.isin(curve.at, list(points)))


def without_empty(curves: Sequence[Curve]) -> list[Curve]:
    """Return the curves without the points at which no method has a value on any sample.

    Curves of one metric and score are treated together. Only points that were measured for at least one of them are
    left out; they are listed in `empty`. A curve that would lose all its points is not changed.
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
    """Return the attributes that two curves must share to be comparable."""
    return curve.metric, curve.score, curve.at, curve.sample, curve.direction, curve.summary


def table(curves: Sequence[Curve]) -> tuple[tuple[int, ...], Float[np.ndarray, "rows methods"]]:
    """Return the rows of all curves, ascending, and the area of each curve in each row; NaN if it has none.

    All areas are over the same points, so a `may_lack_points` curve without one of the points has no area here.

    ValueError: the curves measure different things, a method has two curves, or samples have no names.
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
    rows = all_rows(curves)
    columns = np.full((len(rows), len(curves)), np.nan)
    for column, curve in enumerate(curves):
        values = areas(replace(curve, may_lack_points=False) if curve.may_lack_points else curve)
        columns[:, column] = on_rows(values, curve.pairs, rows)
    return rows, columns


def all_rows(curves: Sequence[Curve]) -> tuple[int, ...]:
    """Return the names of the samples of all curves, ascending."""
    different = {curve.pairs for curve in curves}
    return tuple(sorted(set().union(*different)))


def on_rows(values: Float[np.ndarray, " samples"], pairs: tuple[int, ...], rows: tuple[int, ...]) -> np.ndarray:
    """Return the values of samples as a column of these rows; NaN for rows without a sample."""
    if pairs == rows:
        return np.asarray(values, dtype=np.float64)
    column = np.full(len(rows), np.nan)
    column[np.searchsorted(rows, pairs)] = values
    return column


def _has_values(curve: Curve) -> np.ndarray:
    """Return True for each point that counts.

    All points count, except those of a `may_lack_points` curve that were measured and have no value.
    """
    if not curve.may_lack_points:
        return np.ones(len(curve.at), dtype=bool)
    return ~np.isnan(curve.values).all(axis=0) | np.isin(curve.at, curve.missing or ())


def _at(curve: Curve, keep: np.ndarray) -> Curve:
    at = tuple(point for point, kept in zip(curve.at, keep, strict=True) if kept)
    missing = None if curve.missing is None else tuple(point for point in curve.missing if point in at)
    images = None if curve.images is None else curve.images[:, keep]
    by_draw = None if curve.by_draw is None else curve.by_draw[:, :, keep]
    return replace(curve, at=at, values=curve.values[:, keep], missing=missing, images=images, by_draw=by_draw)


def _without(curve: Curve, empty: set[float]) -> Curve:
    keep = np.array([at not in empty for at in curve.at])
    if keep.all() or not keep.any():
        return curve
    gone = tuple(at for at in curve.at if at in empty)
    return replace(_at(curve, keep), empty=tuple(sorted({*curve.empty, *gone})))
