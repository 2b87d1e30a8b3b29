"""What a metric is: the probes that one point of its curve needs, and how their scores combine."""

import difflib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from efface.call import Call, resolve
from efface.probes import Erasure, Perturb, Retrain
from efface.results import Score
from efface.types import Order, Unit

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Point:
    """One point of a curve: the fraction removed, the repeat, and what fills, ranks and reduces."""

    fraction: float
    repeat: int
    imputer: Call
    post: tuple[Call, ...]
    unit: Unit

    def perturb(self, order: Order) -> Perturb:
        """The given network on images erased in this order."""
        return self.clean() if self.fraction == 0 else Perturb(self._erasure(order))

    def retrain(self, order: Order) -> Retrain:
        """A new network on images erased in this order."""
        return Retrain(self._erasure(order), self.repeat)

    def clean(self) -> Perturb:
        """The given network on whole images: one probe for all methods, fills, posts and units."""
        return Perturb(Erasure("most_first", 0.0, Call(call="efface.impute.channel_mean")))

    def _erasure(self, order: Order) -> Erasure:
        if self.fraction in (0, 1):  # nothing or everything goes: one probe for all methods, orders, posts and units
            return Erasure("most_first", self.fraction, self.imputer)
        return Erasure(order, self.fraction, self.imputer, self.post, self.unit)


@dataclass(frozen=True)
class Metric:
    """A formula over probes.

    probes: the probes of a point, by the name that `value` knows them by.
    value: their scores -> named values. For a retrained metric each is one number (a repeat is a sample), for a
    frozen network an array with one value an image.
    better: for each named value, which way a truthful map moves it; the first is the one shown first.
    over: what a sample is. says: what is erased and what a truthful map does; the report says it beside the curve.
    defaults: settings that its paper fixes and a study may override (imputer, fractions, unit, post).
    """

    probes: Callable[[Point], Mapping[str, Any]]
    value: Callable[[Mapping[str, Score]], Mapping[str, Any]]
    better: Mapping[str, Better]
    over: Literal["repeats", "images"]
    says: str
    defaults: Mapping[str, Any] = field(default_factory=dict)


def metric(name: str) -> Metric:
    """A metric by its short name, or by the dotted path of a `Metric` value. ValueError lists the near names."""
    if "." not in name and name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ValueError(f"there is no metric '{name}'; {hint}there are {', '.join(names())}")
    found = resolve(name if "." in name else f"efface.metrics.{name}.{name}")
    if not isinstance(found, Metric):
        raise ValueError(f"'{name}' is a {type(found).__name__}, expected an efface.metrics.Metric")
    return found


def names() -> list[str]:
    """Short names: the files of this folder."""
    return sorted(each.name for each in pkgutil.iter_modules([str(Path(__file__).parent)]) if each.name != "formula")


def frozen_values(scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    """Per image: whether it is classified right, the probability of the explained class, and how far it moved.

    The relative change is |p0 - p| / p0 in percent: a rise counts as damage too, and images of low confidence weigh
    heavily. Source: the pixel perturbation of Khakzar et al. 2021's released code.
    """
    erased, clean = scores["erased"].values["probability"], scores["clean"].values["probability"]
    before = np.maximum(clean.astype(np.float64), np.finfo(np.float32).tiny)
    return {
        "accuracy": scores["erased"].values["correct"].astype(np.float64),
        "probability": erased.astype(np.float64),
        "relative_change": np.abs(clean.astype(np.float64) - erased) / before * 100,
    }
