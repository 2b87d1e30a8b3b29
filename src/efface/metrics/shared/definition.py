"""Check of a metric's definition: faults in its fields and its probes, and contradictions between them, in words."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, get_args, get_type_hints

import numpy as np

from efface.base.shown import shown
from efface.metrics.formula import EVERY, Better, Metric, Point, metric
from efface.metrics.probes import Perturb, Probe, Retrain, Score, check_probe
from efface.metrics.probes.tokens import unfit_to_drop


def check_metric(where: str, formula: Metric, points: Iterable[Point]) -> list[str]:
    """Return sentences on faults in a metric or in its probes. Nothing is measured.

    where: the metric in the words of the study, such as `metrics.mine`.
    points: the points of its curve.
    """
    if wrong := [f"{where}: {fault}" for fault in _wrong_fields(formula)]:
        return wrong
    faults: dict[str, None] = {}
    seen = set()
    for point in points:
        try:
            probes = formula.probes(point)
        except ValueError:  # the metric does not take this point; the study's reader reports its settings
            continue
        except Exception as error:  # noqa: BLE001  a metric of one's own may raise anything
            return [f"{where}: its 'probes' fails at {point.x:g}: {type(error).__name__}: {error}"]
        if not isinstance(probes, Mapping):
            return [f"{where}: its 'probes' returns a {type(probes).__name__}; expected a mapping of names to probes"]
        unfit = (fault for probe in probes.values() for fault in unfit_to_drop(probe, point.unit))
        faults |= dict.fromkeys(f"{where}: {fault}" for fault in unfit)
        if (kinds := tuple((name, type(probe)) for name, probe in probes.items())) in seen:
            continue
        seen.add(kinds)
        lines = [line for probe in probes.values() for line in check_probe(where, probe)]
        lines = lines or [f"{where}: {fault}" for fault in _at_odds(formula, probes)]
        faults |= dict.fromkeys(lines)
    return list(faults)


def _at_odds(formula: Metric, probes: Mapping[str, Probe]) -> Iterator[str]:
    """Yield sentences where the metric contradicts its probes or its own `value`."""
    if unknown := [str(word) for word in formula.uses if word not in EVERY]:
        yield f"its 'uses' has {', '.join(sorted(unknown))}; known are {', '.join(sorted(EVERY))}"
    named = [("read_with", companion) for companion in formula.read_with]
    for part, other in [*named, ("opposite", formula.opposite)] if formula.opposite else named:
        try:
            metric(other)
        except ValueError as error:
            yield f"its '{part}' names '{other}': {error}"
    for probe in probes.values():
        name, needs = type(probe).__name__, probe.needs
        if needs.network and needs.training and not formula.needs_fit:
            yield f"the probe {name} needs training, but the metric does not set needs_fit=True; add it"
        if not needs.network and formula.sample == "images" and not formula.needs_fit:
            yield f"the probe {name} trains a network, but the metric sets neither sample='repeats' nor needs_fit=True"
        if formula.subject == "network" and needs.of_method:
            yield f"the probe {name} needs maps, but the metric is of the network; set needs = Needs(maps=False)"
    yield from _wrong_value(formula, probes)


def _wrong_fields(formula: Metric) -> Iterator[str]:
    """Yield sentences on fields of a metric whose words are unknown or whose type is wrong."""
    for name, hint in _HINTS.items():
        if (known := _words(hint)) and (value := getattr(formula, name)) not in known:
            yield f"its '{name}' is {shown(value)}; expected {_either(known)}"
    for name in ("caption", "family", "axis", "point_settings", "opposite", "phrase"):
        if not isinstance(value := getattr(formula, name), str):
            yield f"its '{name}' is {shown(value)}; expected text"
    for name in ("uses", "read_with", "by_mean"):
        if isinstance(value := getattr(formula, name), str) or not isinstance(value, Collection):
            yield f"its '{name}' is {shown(value)}; expected several words, such as ({str(value)!r},)"
    yield from _wrong_direction(formula)


def _wrong_direction(formula: Metric) -> Iterator[str]:
    """Yield sentences on a direction that is none, and on fields that name values without a direction."""
    direction = formula.direction
    if not isinstance(direction, Mapping) or not direction:
        yield (
            f"its 'direction' is {shown(direction)}; expected the direction of each value, such as "
            "{'accuracy': 'lower'}"
        )
        return
    for name, better in direction.items():
        if better not in get_args(Better):
            yield f"its 'direction' of '{name}' is {shown(better)}; expected {_either(get_args(Better))}"
    named = {"by_mean": formula.by_mean, "value_units": formula.value_units, "ranges": formula.ranges}
    for part, names in named.items():
        given = names if isinstance(names, Collection) and not isinstance(names, str) else ()
        if unknown := [str(value) for value in given if value not in direction]:
            known = ", ".join(map(str, direction))
            yield f"its '{part}' names {', '.join(unknown)}, which 'direction' does not have; it has {known}"
    if not isinstance(formula.ranges, Mapping):
        yield f"its 'ranges' is {shown(formula.ranges)}; expected ends by value, such as {{'accuracy': (0.0, 1.0)}}"
        return
    for name, ends in formula.ranges.items():
        if not _is_range(ends):
            yield f"its 'ranges' of '{name}' is {shown(ends)}; expected two ascending numbers, such as (0.0, 1.0)"


def _is_range(ends: Any) -> bool:
    """Return whether this is a pair of finite numbers, the smaller one first."""
    if not isinstance(ends, tuple) or len(ends) != 2:
        return False
    return all(isinstance(end, float | int) and math.isfinite(end) for end in ends) and ends[0] < ends[1]


def _words(hint: Any) -> tuple[Any, ...]:
    """Return the words that a field may have; none for a field of another kind."""
    words = get_args(hint)
    return words if words and all(isinstance(word, str) for word in words) else ()


def _either(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


_HINTS = get_type_hints(Metric)


class _Kept(dict[str, Any]):
    """A mapping of the names that are known. It keeps the first other name that is read."""

    unknown = ""

    def __missing__(self, name: str) -> Any:
        self.unknown = self.unknown or str(name)
        raise KeyError(name)


def _wrong_value(formula: Metric, probes: Mapping[str, Probe]) -> Iterator[str]:
    """Yield a sentence if `value` reads a probe or a value that is not there, or contradicts `direction`."""
    read = {name: _known_values(probe) for name, probe in probes.items()}
    scores = _Kept({name: Score(values) for name, values in read.items()})
    try:
        with np.errstate(all="ignore"):
            if problem := misnamed(formula, formula.value(scores)):
                yield problem
    except KeyError:
        if scores.unknown:
            yield (
                f"its 'value' reads the probe '{scores.unknown}', but its 'probes' has only "
                f"{', '.join(map(str, probes)) or 'none'}; use one of these names"
            )
        for name, values in read.items():
            if isinstance(values, _Kept) and values.unknown:
                yield (
                    f"its 'value' reads '{values.unknown}' of the probe '{name}', whose score has only "
                    f"{', '.join(values)}; use one of these names"
                )
    except Exception:  # noqa: BLE001  `value` may need more than these zeros
        return


def _known_values(probe: Probe) -> Mapping[str, Any]:
    """Return zeros under each name of a probe's score; under any name for a probe whose names are not known."""
    if type(probe) not in (Perturb, Retrain):
        return defaultdict(lambda: np.zeros(2))
    names = ("accuracy", "probability", "logit") + (("epochs",) if isinstance(probe, Retrain) else ())
    return _Kept({name: np.zeros(2) for name in names})


def misnamed(formula: Metric, values: Mapping[str, Any]) -> str:
    """Return a sentence if `value` and `direction` have different names, otherwise ""."""
    return names_differ(formula.direction, values)


def names_differ(direction: Mapping[str, Better], values: Mapping[str, Any]) -> str:
    """Return the same sentence for a metric of this `direction`."""
    extra, lacking = (
        [name for name in one if name not in other] for one, other in ((values, direction), (direction, values))
    )
    if extra:
        them = ", ".join(extra)
        return f"its 'value' returns {them}, but 'direction' does not name it; add it to 'direction', or drop it"
    if lacking:
        them = ", ".join(lacking)
        return f"its 'value' does not return {them}, but 'direction' names it; return it, or drop it from 'direction'"
    return ""
