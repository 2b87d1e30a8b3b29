"""What a metric is: the probes that one point of its curve needs, and how their scores combine."""

import difflib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from efface.metrics.probes import Erasure, Perturb, Retrain
from efface.plug.call import Call, resolve
from efface.store.results import Score
from efface.types import Order

Better = Literal["higher", "lower", "none"]
Family = Literal[
    "retraining",
    "erasure",
    "faithfulness",
    "robustness",
    "randomisation",
    "localisation",
    "axiom",
    "complexity",
    "control",
]


@dataclass(frozen=True)
class Point:
    """One point of a curve: where it lies on the metric's axis, the repeat, and what fills, ranks and reduces.

    fraction: the fraction removed; whatever else the metric's axis counts; 0 where it has none.
    """

    fraction: float
    repeat: int
    imputer: Call
    post: tuple[Call, ...]
    unit: Literal["pixel", "feature"] | Call

    def perturb(self, order: Order | Literal["random"], fraction: float | None = None) -> Perturb:
        """The given network on images erased in this order; fraction: another than the point's."""
        where = self.fraction if fraction is None else fraction
        return self.clean() if where == 0 else Perturb(self.erasure(order, where))

    def retrain(self, order: Order | Literal["random"]) -> Retrain:
        """A new network on images erased in this order."""
        return Retrain(self.erasure(order, self.fraction), self.repeat)

    def clean(self) -> Perturb:
        """The given network on whole images: one probe for all methods, fills, posts and units."""
        return Perturb(Erasure("most_first", 0.0, Call(call="efface.impute.channel_mean")))

    def erasure(self, order: Order | Literal["random"], fraction: float) -> Erasure:
        """What is erased; at 0 and 1 the same for all methods, orders, posts and units."""
        if fraction in (0, 1):
            return Erasure("most_first", fraction, self.imputer)
        return Erasure(order, fraction, self.imputer, () if order == "random" else self.post, self.unit)


Setting = Literal["imputer", "unit", "groups", "post", "fractions"]
_FILLS = Call(call="efface.impute.constant"), Call(call="efface.impute.channel_mean")
_POST = (Call(call="efface.erase.post.absolute"),)
_GROUPS = Call(call="efface.erase.units.patch", kwargs={"size": 2})


@dataclass(frozen=True)
class Metric:
    """A formula over probes.

    probes: the probes of a point, by the name that `value` knows them by.
    value: their scores -> named values. For a retrained metric each is one number (a repeat is a sample), for a
    frozen network an array with one value an image, NaN where an image has none.
    better: for each named value, which way a truthful map moves it (`none`: it only describes); the first is the one
    shown first.
    over: what a sample is. says: what is erased and what a truthful map does; the report says it beside the curve.
    family: under which heading the report shows it.
    defaults: settings that its paper fixes and a study may override (imputer, fractions, unit, post, repeats).
    axis: what the points count; "" for a metric that is one number. Where it is not "fraction removed", `fractions`
    of the study do not count and `at` gives the points.
    at: the points for images of c h w, ascending; or those of the study.
    points_of: the settings of its own that give its points where these are no fractions: `fractions` are refused then.
    summary: what stands for a curve in the tables: the area under it by the trapezoid rule, or the mean of its points.
    by_mean: named values of which the mean stands whatever `summary` says: AOPC is one.
    partial: whether a method may have no value at some points by its nature: then it is summed up over the points that
        it has, and two methods are compared over those that both have.
    of: whether it is measured for the maps of each method, or once for the network: then no probe needs a map, and the
        report has it under "The network".
    needs_fit: whether it trains with the study's `fit` although its samples are images; `repeats` always do.
    """

    probes: Callable[[Point], Mapping[str, Any]]
    value: Callable[[Mapping[str, Score]], Mapping[str, Any]]
    better: Mapping[str, Better]
    over: Literal["repeats", "images"]
    says: str
    family: Family = "erasure"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    axis: str = "fraction removed"
    at: Callable[[tuple[int, int, int]], tuple[float, ...]] | None = None
    summary: Literal["area", "mean"] = "area"
    by_mean: Collection[str] = ()
    partial: bool = False
    needs_fit: bool = False
    of: Literal["maps", "network"] = "maps"
    points_of: str = ""

    @cached_property
    def reads(self) -> frozenset[Setting]:
        """The settings which every metric may have that change this one's probes; `groups`: a unit of several pixels.

        Found by asking for its probes with one and with another of each.
        """
        apart = self._apart("pixel", "feature", "unit")
        groups = self._apart("pixel", _GROUPS, "unit") and self._apart("feature", _GROUPS, "unit")
        found: dict[Setting, bool] = {
            "imputer": self._apart(*_FILLS, "imputer"),
            "post": self._apart((), _POST, "post"),
            "unit": apart or groups,
            "groups": groups,
            "fractions": bool(self.axis) and not self.points_of,
        }
        return frozenset(name for name, read in found.items() if read)

    def _apart(self, one: Any, other: Any, name: str) -> bool:
        """Whether its probes with one value of a setting are others than with another; True where it gives none."""
        found = []
        for where in (0.0, 0.5, 1.0):  # nothing, some and all of an axis of fractions; a whole number of any other
            point = Point(where, 0, _FILLS[0], (), "pixel")
            with suppress(Exception):  # a point that the metric does not take: said where it is planned
                made = [self.probes(replace(point, **{name: value})) for value in (one, other)]
                found.append([{each: probe.identity() for each, probe in probes.items()} for probes in made])
        return not found or any(first != second for first, second in found)


def metric(name: str, settings: Mapping[str, Any] | None = None) -> Metric:
    """A metric by its short name, or by the dotted path of a `Metric` value or of a function that makes one.

    settings: the function's own. ValueError lists the near names.
    """
    if "." not in name and name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ValueError(f"there is no metric '{name}'; {hint}there are {', '.join(names())}")
    path = name if "." in name else f"efface.metrics.{name}.{name}"
    found = resolve(path)
    if _makes_metric(found):
        call = Call(call=path, kwargs=dict(settings or {}))
        call.check(())
        found = call()
    elif settings:
        raise ValueError(f"metric '{name}' has no settings of its own, found {', '.join(settings)}")
    if not isinstance(found, Metric):
        raise ValueError(
            f"'{name}' is a {type(found).__name__}, expected an efface.metrics.Metric or a function -> Metric"
        )
    return found


def _makes_metric(found: Any) -> bool:
    return inspect.isfunction(found) and found is not metric and inspect.signature(found).return_annotation is Metric


def own_settings(name: str) -> list[str]:
    """The settings that a metric has besides those of every metric."""
    try:
        found = resolve(name if "." in name else f"efface.metrics.{name}.{name}")
    except ValueError:
        return []
    return list(inspect.signature(found).parameters) if _makes_metric(found) else []


def names() -> list[str]:
    """Short names: the files of this folder."""
    found = (each.name for each in pkgutil.iter_modules([str(Path(__file__).parent)]) if not each.ispkg)
    return sorted(name for name in found if name != "formula" and not name.startswith("_"))


def frozen_values(scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    """Per image: whether it is classified right, probability of the explained class, and how far it moved.

    logit_ratio is the explained class's logit beside that on the whole image, NaN where that is not positive: a ratio
    with it says nothing. drop is the probability lost; its mean over the points is AOPC.
    relative_change is |p0 - p| / p0 in percent: a rise counts as damage too, and images of low confidence weigh
    heavily.

    Source: the logit ratio: Yang, Akhtar, Wen & Mian 2023 (DiffID); AOPC: Samek et al. 2015, equation 12
    (arXiv:1509.06321); relative change: the pixel perturbation of Khakzar et al. 2021's released code.
    """
    erased, clean = scores["erased"].values, scores["clean"].values
    after, before = (each["probability"].astype(np.float64) for each in (erased, clean))
    return {
        "accuracy": erased["accuracy"].astype(np.float64),
        "probability": erased["probability"].astype(np.float64),
        "logit_ratio": logit_ratio(scores["erased"], scores["clean"]),
        "drop": before - after,
        "relative_change": np.abs(before - after) / np.maximum(before, np.finfo(np.float32).tiny) * 100,
    }


def logit_ratio(erased: Score, clean: Score) -> np.ndarray:
    """The explained class's logit beside that on the whole image; NaN where that is not positive."""
    before = clean.values["logit"].astype(np.float64)
    return np.where(before > 0, erased.values["logit"] / np.where(before > 0, before, 1), np.nan)
