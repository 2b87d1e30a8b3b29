"""`controls: mask`: what a retrained score owes to the outline of the removed units, by controls of each method.

A new network that is trained on erased images also sees where something was erased. Two controls show how much that is
worth: `mask_leak`, a network that sees nothing else; and a blurred twin of each map, which knows no more than the map.
"""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from efface.metrics import metric
from efface.study.metric_entry import MetricEntry

MASK = "mask"
LEAK = "mask_leak"
_SETTINGS = ("unit", "post", "repeats")
"""Settings that an outline shares with the metric that it belongs to."""
_DIGITS = 10


class Outline(NamedTuple):
    """Where the outline of a retrained metric is measured.

    leak: entry of `mask_leak`. kept: entry with the accuracy without the least relevant units, removed: without the
    most relevant ones; None if the metric does not use it. For `roar` and `kar`, this is the metric itself.
    """

    leak: str
    kept: str | None
    removed: str | None


def with_leaks(tree: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the tree of a study with the entries of `mask_leak` that `controls: mask` needs."""
    metrics = tree.get("metrics")
    if tree.get("controls") != MASK or not isinstance(metrics, list | tuple):
        return dict(tree)
    entries = [dict(each) if isinstance(each, Mapping) else {"name": each} for each in metrics]
    added: list[dict[str, Any]] = []
    names = {entry.get("name") for entry in entries}
    for entry in [*entries]:
        seen = _seen(entry)
        if not seen:
            continue
        kwargs = entry.get("kwargs") or {}
        points = _points(kwargs.get("fractions") or tree.get("fractions") or _DEFAULT, seen)
        wanted = {key: kwargs[key] for key in _SETTINGS if kwargs.get(key) is not None}
        if any(_serves(other, wanted, points) for other in [*entries, *added]):
            continue
        own = LEAK if LEAK not in names else f"{LEAK}+{entry.get('name')}"
        names.add(own)
        path = {} if own == LEAK else {"metric": LEAK}
        added.append({"name": own, **path, "kwargs": wanted | {"fractions": points}})
    return dict(tree) | {"metrics": [*metrics, *added]}


def outlines(metrics: Iterable[MetricEntry], fractions: Iterable[float]) -> dict[str, Outline]:
    """Return where the outline of each retrained metric is measured. Metrics without such an entry are left out.

    A difference of two accuracies needs the metrics of both, with its settings.

    fractions: those of the study.
    """
    entries, given, found = list(metrics), tuple(fractions), {}
    for entry in (each for each in entries if each.formula.outline):
        leak = next((each for each in entries if each.is_of(LEAK) and _covers(each, entry, given)), None)
        alike = (
            [entry] if entry.formula.outline != "both" else [each for each in entries if each.kwargs == entry.kwargs]
        )
        by_side = {each.formula.outline: each.name for each in alike}
        sides = {side: by_side.get(side) for side in ("kept", "removed")}
        known = all(sides.values()) if entry.formula.outline == "both" else True
        if leak is not None and known:
            found[entry.name] = Outline(leak.name, sides["kept"], sides["removed"])
    return found


def _covers(leak: MetricEntry, entry: MetricEntry, fractions: tuple[float, ...]) -> bool:
    """Return whether an entry measures the outline of another one, at all of its fractions."""
    there = {round(each, _DIGITS) for each in leak.kwargs.fractions or fractions}
    points = _points(entry.kwargs.fractions or fractions, entry.formula.outline)
    return set(points) <= there and all(getattr(entry.kwargs, key) == getattr(leak.kwargs, key) for key in _SETTINGS)


_DEFAULT = (0.1, 0.3, 0.5, 0.7, 0.9)


def _points(fractions: Iterable[float], seen: str) -> list[float]:
    """Return the fractions at which the outline is needed, ascending. At 0 and 1 there is none."""
    known = [float(each) for each in fractions if isinstance(each, int | float)]  # the study refuses anything else
    removed = known if seen in ("removed", "both") else []
    kept = [1 - each for each in known] if seen in ("kept", "both") else []
    return sorted({round(each, _DIGITS) for each in (*removed, *kept)} - {0.0, 1.0})


def _serves(entry: Mapping[str, Any], wanted: Mapping[str, Any], points: Iterable[float]) -> bool:
    """Return whether an entry measures the outline with these settings at these fractions."""
    kwargs = entry.get("kwargs") or {}
    own = {key: kwargs[key] for key in _SETTINGS if kwargs.get(key) is not None}
    there = {round(float(each), _DIGITS) for each in kwargs.get("fractions") or ()}
    return (entry.get("metric") or entry.get("name")) == LEAK and own == wanted and set(points) <= there


def _seen(entry: Mapping[str, Any]) -> str:
    with contextlib.suppress(ValueError, TypeError):  # the check of the entry reports it
        return metric(str(entry.get("metric") or entry.get("name"))).outline
    return ""
