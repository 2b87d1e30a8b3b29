"""The definition of a metric: the probes of one point of its curve, and the formula that combines their scores."""

import difflib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from efface.base.types import Order
from efface.metrics.probes import Erasure, Perturb, Probe, Retrain
from efface.plug.call import Call, resolve
from efface.store.results import Score

Better = Literal["higher", "lower", "none"]
Setting = Literal["imputer", "unit", "groups", "post", "fractions"]
FRACTION_REMOVED = "fraction removed"
EVERY: frozenset[Setting] = frozenset({"imputer", "unit", "groups", "post", "fractions"})
"""All settings that a study may give any metric."""


@dataclass(frozen=True)
class Point:
    """One point of a curve: its place on the axis, the repeat, the imputer, `post` and the unit.

    x: the fraction removed, or another quantity that the metric's axis counts. 0 if the metric has no axis.
    """

    x: float
    repeat: int
    imputer: Call
    post: tuple[Call, ...]
    unit: Literal["pixel", "feature"] | Call

    def perturb(self, order: Order | Literal["random"], fraction: float | None = None) -> Perturb:
        """Return the given network on images erased in this order.

        fraction: fraction to erase instead of the point's.
        """
        where = self.x if fraction is None else fraction
        return self.clean() if where == 0 else Perturb(self.erasure(order, where))

    def retrain(self, order: Order | Literal["random"]) -> Retrain:
        """Return a new network, trained on images erased in this order."""
        return Retrain(self.erasure(order, self.x), self.repeat)

    def clean(self) -> Perturb:
        """Return the given network on whole images: one probe for all methods, imputers, posts and units."""
        return Perturb(Erasure("most_first", 0.0, Call(call="efface.impute.channel_mean")))

    def erasure(self, order: Order | Literal["random"], fraction: float) -> Erasure:
        """Return what is erased. At 0 and 1 it is the same for all methods, orders, posts and units."""
        if fraction in (0, 1):
            return Erasure("most_first", fraction, self.imputer)
        return Erasure(order, fraction, self.imputer, () if order == "random" else self.post, self.unit)


@dataclass(frozen=True)
class Metric:
    """A formula over probes.

    probes: the probes of a point, by the names that `value` uses.
    value: function of their scores that returns named values: arrays with one value for each test image, NaN if an
        image has none. A retrained metric may also return one number. Its interval then knows the spread of the
        trainings alone, and the page says so.
    direction: for each named value, the direction in which a truthful map moves it. `none`: the value only describes.
        The report shows the first one first.
    sample: what a sample is, an image or a repeat.
    caption: what is erased and what a truthful map does. The report prints it beside the curve.
    family: heading in the report, one of `efface.report.table.FAMILIES`. Another word becomes a heading of its own.
    defaults: settings of the metric's paper that a study may override (imputer, fractions, unit, post, repeats).
    axis: what the points count; "" for a metric that is one number. If it is not "fraction removed", `points_for` gives
        the points and the study's `fractions` are not used.
    points_for: function that returns the points for images of c h w in ascending order. None: the study's points, or
        the one point 0 of a metric that is one number.
    point_settings: names of the metric's own settings that define its points, if the axis is not a fraction. A study
        that gives it `fractions` is then refused.
    summary: the number of a curve in the tables: the area under it by the trapezoid rule, or the mean of its points.
    by_mean: named values that always use the mean, such as AOPC.
    may_lack_points: True if some methods have no value at some points by design. The summary then uses the points that
        exist. Two methods are compared on the points that both have.
    subject: "maps": measured for the maps of each method. "network": measured once, without maps; the report shows it
        under "The network".
    uses: settings of a study that change the probes. A study that gives another one is refused. `groups` is a unit of
        several pixels. By default all settings.
    read_with: metrics that must be read beside this one, by short name or path. The report says so if they are missing.
    opposite: metric that erases in the opposite order, by short name or path. The report says how alike the two rank.
    phrase: words for the metric within a sentence; by default its name.
    value_units: units of named values, such as "%". The report writes them behind the numbers.
    ranges: smallest and largest possible value of named values. Intervals are then right near the ends too, and few
        images that differ are enough for a verdict.
    outline: of a retrained accuracy, which outlines its network sees: `removed` for that of the most relevant units
        at the fraction x, `kept` for that of the least relevant ones, `both` for a difference of the two.
    needs_fit: True if the metric trains with the study's `fit` although its samples are images. A metric of `repeats`
        always trains.
    """

    probes: Callable[[Point], Mapping[str, Probe]]
    value: Callable[[Mapping[str, Score]], Mapping[str, Any]]
    direction: Mapping[str, Better]
    sample: Literal["repeats", "images"]
    caption: str
    family: str = "erasure"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    axis: str = FRACTION_REMOVED
    points_for: Callable[[tuple[int, int, int]], tuple[float, ...]] | None = None
    summary: Literal["area", "mean"] = "area"
    by_mean: Collection[str] = ()
    may_lack_points: bool = False
    needs_fit: bool = False
    subject: Literal["maps", "network"] = "maps"
    point_settings: str = ""
    uses: frozenset[Setting] = EVERY
    read_with: tuple[str, ...] = ()
    opposite: str = ""
    phrase: str = ""
    value_units: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    outline: Literal["", "removed", "kept", "both"] = ""

    @property
    def erases(self) -> bool:
        """True if the points are fractions that are removed."""
        return self.axis == FRACTION_REMOVED

    def __post_init__(self) -> None:
        if not self.axis and self.points_for is None:
            object.__setattr__(self, "points_for", _one_point)


def _one_point(_shape: tuple[int, int, int]) -> tuple[float, ...]:
    return (0.0,)


def values_of(probe: str, *names: str, **others: str) -> Callable[[Mapping[str, Score]], dict[str, np.ndarray]]:
    """Return the `value` of a metric that shows values of one probe as they are.

    probe: name of the probe in `probes`.
    names: names of the values.
    others: for each value that has another name in the metric, its name in the score of the probe.
    """
    read = dict(zip(names, names, strict=True)) | others
    return lambda scores: {name: scores[probe].values[source] for name, source in read.items()}


def metric(name: str, settings: Mapping[str, Any] | None = None) -> Metric:
    """Return a metric by its short name, or by the dotted path of a `Metric` or of a function that returns one.

    settings: settings of the function. ValueError: no such metric; the message names a similar one.
    """
    if "." not in name and name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ValueError(f"there is no metric '{name}'; {hint}there are {', '.join(names())}")
    path = name if "." in name else f"efface.metrics.{name}.{name}"
    plugin = resolve(path)
    if _makes_metric(plugin):
        call = Call(call=path, kwargs=dict(settings or {}))
        call.check(())
        plugin = call()
    elif settings:
        raise ValueError(f"metric '{name}' has no settings of its own, found {', '.join(settings)}")
    if not isinstance(plugin, Metric):
        raise ValueError(
            f"'{name}' is a {type(plugin).__name__}, expected an efface.metrics.Metric or a function -> Metric"
        )
    return plugin


def _makes_metric(plugin: Any) -> bool:
    return inspect.isfunction(plugin) and plugin is not metric and inspect.signature(plugin).return_annotation is Metric


def own_settings(name: str) -> list[str]:
    """Return the names of the settings that this metric has besides those of every metric."""
    try:
        plugin = resolve(name if "." in name else f"efface.metrics.{name}.{name}")
    except ValueError:
        return []
    return list(inspect.signature(plugin).parameters) if _makes_metric(plugin) else []


def names() -> list[str]:
    """Return the short names of all metrics, which are the files of this folder."""
    files = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if not module.ispkg)
    return sorted(name for name in files if name != "formula" and not name.startswith("_"))


def frozen_values(scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    """Return five values for each image, from the scores of the erased and the clean image.

    accuracy: 1 if the erased image is classified right.
    probability: the probability of the explained class.
    logit_ratio: the logit of the explained class, divided by that of the whole image. NaN if the latter is not
        positive, since a ratio then has no meaning.
    drop: the probability lost. Its mean over the points is AOPC.
    relative_change: |p0 - p| / p0 in percent, where p0 is the clean probability. A rise also counts as damage, and
        images of low confidence weigh heavily.

    Source: the logit ratio: Yang et al., ICLR 2023 (DiffID); AOPC: Samek et al. 2015, equation 12
    (arXiv:1509.06321); relative change: the pixel perturbation of Khakzar et al. 2021's released code.
    """
    erased, clean = scores["erased"].values, scores["clean"].values
    after, before = (score["probability"].astype(np.float64) for score in (erased, clean))
    return {
        "accuracy": erased["accuracy"].astype(np.float64),
        "probability": erased["probability"].astype(np.float64),
        "logit_ratio": logit_ratio(scores["erased"], scores["clean"]),
        "drop": before - after,
        "relative_change": np.abs(before - after) / np.maximum(before, np.finfo(np.float32).tiny) * 100,
    }


def logit_ratio(erased: Score, clean: Score) -> np.ndarray:
    """Return the logit of the explained class divided by that of the whole image, NaN if the latter is not positive."""
    before = clean.values["logit"].astype(np.float64)
    return np.where(before > 0, erased.values["logit"] / np.where(before > 0, before, 1), np.nan)
