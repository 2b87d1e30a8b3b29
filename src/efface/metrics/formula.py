"""What a metric is: the probes that one point of its curve needs, and how their scores combine."""

import contextlib
import difflib
import inspect
import pkgutil
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from efface.metrics.probes import Erasure, Perturb, Probe, Retrain, check_probe
from efface.plug.call import Call, resolve
from efface.store.results import Score
from efface.types import Order

Better = Literal["higher", "lower", "none"]
Setting = Literal["imputer", "unit", "groups", "post", "fractions"]
EVERY: frozenset[Setting] = frozenset({"imputer", "unit", "groups", "post", "fractions"})
"""All settings that a study may give any metric."""


@dataclass(frozen=True)
class Point:
    """One point of a curve: where it lies on the metric's axis, the repeat, and what fills, ranks and reduces.

    x: the fraction removed; whatever else the metric's axis counts; 0 where it has none.
    """

    x: float
    repeat: int
    imputer: Call
    post: tuple[Call, ...]
    unit: Literal["pixel", "feature"] | Call

    def perturb(self, order: Order | Literal["random"], fraction: float | None = None) -> Perturb:
        """The given network on images erased in this order; fraction: another than the point's."""
        where = self.x if fraction is None else fraction
        return self.clean() if where == 0 else Perturb(self.erasure(order, where))

    def retrain(self, order: Order | Literal["random"]) -> Retrain:
        """A new network on images erased in this order."""
        return Retrain(self.erasure(order, self.x), self.repeat)

    def clean(self) -> Perturb:
        """The given network on whole images: one probe for all methods, fills, posts and units."""
        return Perturb(Erasure("most_first", 0.0, Call(call="efface.impute.channel_mean")))

    def erasure(self, order: Order | Literal["random"], fraction: float) -> Erasure:
        """What is erased; at 0 and 1 the same for all methods, orders, posts and units."""
        if fraction in (0, 1):
            return Erasure("most_first", fraction, self.imputer)
        return Erasure(order, fraction, self.imputer, () if order == "random" else self.post, self.unit)


@dataclass(frozen=True)
class Metric:
    """A formula over probes.

    probes: the probes of a point, by the name that `value` knows them by.
    value: their scores -> named values. For a retrained metric each is one number (a repeat is a sample), for a
    frozen network an array with one value an image, NaN where an image has none.
    direction: for each named value, which way a truthful map moves it (`none`: it only describes); the first is the one
    shown first.
    sample: what a sample is. caption: what is erased and what a truthful map does; the report says it beside the curve.
    family: under which heading the report shows it: retraining, erasure, faithfulness, robustness, randomisation,
        localisation, axiom, complexity or control; any other word is a heading of its own.
    defaults: settings that its paper fixes and a study may override (imputer, fractions, unit, post, repeats).
    axis: what the points count; "" for a metric that is one number. Where it is not "fraction removed", `fractions`
    of the study do not count and `points_for` gives the points.
    points_for: the points for images of c h w, ascending; or those of the study.
    point_settings: the settings of its own that give its points where these are no fractions: `fractions` are refused
        then.
    summary: what stands for a curve in the tables: the area under it by the trapezoid rule, or the mean of its points.
    by_mean: named values of which the mean stands whatever `summary` says: AOPC is one.
    may_lack_points: whether a method may have no value at some points by its nature: then it is summed up over the
        points that it has, and two methods are compared over those that both have.
    subject: whether it is measured for the maps of each method, or once for the network: then no probe needs a map, and
        the report has it under "The network".
    uses: the settings of a study that change its probes; whoever gives it another is told so. `groups`: a unit of
        several pixels. By default all of them.
    read_with: metrics that must be read beside it; the report says so where they are missing.
    needs_fit: whether it trains with the study's `fit` although its samples are images; `repeats` always do.
    """

    probes: Callable[[Point], Mapping[str, Probe]]
    value: Callable[[Mapping[str, Score]], Mapping[str, Any]]
    direction: Mapping[str, Better]
    sample: Literal["repeats", "images"]
    caption: str
    family: str = "erasure"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    axis: str = "fraction removed"
    points_for: Callable[[tuple[int, int, int]], tuple[float, ...]] | None = None
    summary: Literal["area", "mean"] = "area"
    by_mean: Collection[str] = ()
    may_lack_points: bool = False
    needs_fit: bool = False
    subject: Literal["maps", "network"] = "maps"
    point_settings: str = ""
    uses: frozenset[Setting] = EVERY
    read_with: tuple[str, ...] = ()


def check_metric(where: str, formula: Metric, points: Iterable[Point]) -> list[str]:
    """Sentences on what is wrong with the parts of a metric or of its probes, found without measuring anything.

    where: the metric, in the words of the study, such as `metrics.mine`. points: those of its curve.
    """
    found: dict[str, None] = {}
    seen = set()
    for point in points:
        try:
            probes = formula.probes(point)
        except ValueError:  # a point that the metric does not take: said where its settings are refused
            continue
        except Exception as error:  # noqa: BLE001  a metric of one's own may raise anything
            return [f"{where}: its 'probes' fails at {point.x:g}: {type(error).__name__}: {error}"]
        if not isinstance(probes, Mapping):
            return [f"{where}: its 'probes' gives a {type(probes).__name__}; expected a mapping of names to probes"]
        if (kinds := tuple((name, type(probe)) for name, probe in probes.items())) in seen:
            continue
        seen.add(kinds)
        told = [line for probe in probes.values() for line in check_probe(where, probe)]
        told = told or [f"{where}: {each}" for each in _at_odds(formula, probes)]
        found |= dict.fromkeys(told)
    return list(found)


def _at_odds(formula: Metric, probes: Mapping[str, Probe]) -> Iterator[str]:
    """Where a metric says something else than its probes do, or than its own `value`."""
    if unknown := [str(each) for each in formula.uses if each not in EVERY]:
        yield f"its 'uses' has {', '.join(sorted(unknown))}; known are {', '.join(sorted(EVERY))}"
    for probe in probes.values():
        name, needs = type(probe).__name__, probe.needs
        if needs.network and needs.training and not formula.needs_fit:
            yield f"the probe {name} needs training, but the metric does not say needs_fit=True; add it"
        if not needs.network and formula.sample == "images" and not formula.needs_fit:
            yield f"the probe {name} trains a network, but the metric does not say sample='repeats' or needs_fit=True"
        if formula.subject == "network" and needs.of_method:
            yield f"the probe {name} needs maps, but the metric is of the network; say needs = Needs(maps=False)"
    with contextlib.suppress(Exception):  # it may ask for more of its scores than zeros have
        zeros = {name: Score(defaultdict(lambda: np.zeros(2))) for name in probes}
        with np.errstate(all="ignore"):
            if problem := misnamed(formula, formula.value(zeros)):
                yield problem


def misnamed(formula: Metric, values: Mapping[str, Any]) -> str:
    """Where the names that `value` gives are not those of `direction`, in words; "" where they are."""
    extra, lacking = (
        [each for each in one if each not in other]
        for one, other in ((values, formula.direction), (formula.direction, values))
    )
    if extra:
        them = ", ".join(extra)
        return f"its 'value' gives {them}, of which 'direction' says nothing; add it to 'direction', or drop it"
    if lacking:
        them = ", ".join(lacking)
        return f"its 'value' does not give {them}, which 'direction' names; give it, or drop it from 'direction'"
    return ""


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
