"""`controls: mask`: what a retrained score owes to the outline of the removed units, by controls of each method.

A new network that is trained on erased images also sees where something was erased. Two controls show how much that is
worth: `mask_leak`, a network that sees nothing else; and a blurred twin of each map, which knows no more than the map.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from efface.study.metric_entry import MetricEntry
from efface.study.schema import Fraction

MASK = "mask"
LEAK = "mask_leak"
_SETTINGS = ("unit", "post", "repeats")
"""Settings that an outline shares with the metric that it belongs to."""
_DIGITS = 10
_FRACTIONS = TypeAdapter(tuple[Fraction, ...])


class Outline(NamedTuple):
    """Where the outline of a retrained metric is measured.

    leak: entry of `mask_leak`. kept: entry with the accuracy without the least relevant units, removed: without the
    most relevant ones; None if the metric does not use it. For `roar` and `kar`, this is the metric itself. random: the
    rows of random pixels, of which the first one that is measured stands for pixels that tell nothing.
    """

    leak: str
    kept: str | None
    removed: str | None
    random: tuple[str, ...] = ()


def with_leaks(tree: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the tree of a study with the entries of `mask_leak` that `controls: mask` needs."""
    metrics = tree.get("metrics")
    if tree.get("controls") != MASK or not isinstance(metrics, list | tuple):
        return dict(tree)
    given = _numbers(tree["fractions"]) if tree.get("fractions") is not None else [*_DEFAULT]
    entries = [(entry, each) for each in metrics if (entry := _entry(each)) is not None]
    leaks = [entry for entry, _ in entries if entry.is_of(LEAK)]
    names, added = {entry.name for entry, _ in entries}, list[dict[str, Any]]()
    for entry, written in entries:
        if not _has_both([each for each, _ in entries], entry):
            continue
        points = _points(entry.kwargs.fractions or given, entry.formula.outline)
        if not points or any(_covers(leak, entry, given) for leak in leaks):
            continue
        kwargs = written.get("kwargs") or {} if isinstance(written, Mapping) else {}
        own = LEAK if LEAK not in names else f"{LEAK}+{entry.name}"
        path = {} if own == LEAK else {"metric": LEAK}
        wanted = {key: kwargs[key] for key in _SETTINGS if kwargs.get(key) is not None}
        made = {"name": own, **path, "kwargs": wanted | {"fractions": points}}
        names.add(own)
        leaks.append(MetricEntry.model_validate(made))
        added.append(made)
    return dict(tree) | {"metrics": [*metrics, *added]}


def _has_both(entries: Sequence[MetricEntry], entry: MetricEntry) -> bool:
    """Return whether a difference of two accuracies has the metrics of both beside it. Other metrics need none."""
    beside = {each.formula.outline for each in entries if each.kwargs == entry.kwargs}
    return entry.formula.outline != "both" or {"kept", "removed"} <= beside


def outlines(
    metrics: Iterable[MetricEntry], fractions: Iterable[float], random: Iterable[str] = ()
) -> dict[str, Outline]:
    """Return where the outline of each retrained metric is measured. Metrics without such an entry are left out.

    A difference of two accuracies needs the metrics of both, with its settings.

    fractions: those of the study. random: the rows of its random controls.
    """
    entries, given, controls, found = list(metrics), tuple(fractions), tuple(random), {}
    for entry in (each for each in entries if each.formula.outline):
        leak = next((each for each in entries if each.is_of(LEAK) and _covers(each, entry, given)), None)
        alike = (
            [entry] if entry.formula.outline != "both" else [each for each in entries if each.kwargs == entry.kwargs]
        )
        by_side = {each.formula.outline: each.name for each in alike}
        sides = {side: by_side.get(side) for side in ("kept", "removed")}
        known = all(sides.values()) if entry.formula.outline == "both" else True
        if leak is not None and known:
            found[entry.name] = Outline(leak.name, sides["kept"], sides["removed"], controls)
    return found


def _covers(leak: MetricEntry, entry: MetricEntry, fractions: Sequence[float]) -> bool:
    """Return whether an entry measures the outline of another one, at all of its fractions."""
    there = {round(each, _DIGITS) for each in leak.kwargs.fractions or fractions}
    points = _points(entry.kwargs.fractions or fractions, entry.formula.outline)
    return set(points) <= there and all(getattr(entry.kwargs, key) == getattr(leak.kwargs, key) for key in _SETTINGS)


_DEFAULT = (0.1, 0.3, 0.5, 0.7, 0.9)


def _points(fractions: Iterable[float], seen: str) -> list[float]:
    """Return the fractions at which the outline is needed, ascending. At 0 and 1 there is none."""
    removed = [*fractions] if seen in ("removed", "both") else []
    kept = [1 - each for each in fractions] if seen in ("kept", "both") else []
    return sorted({round(each, _DIGITS) for each in (*removed, *kept)} - {0.0, 1.0})


def _numbers(fractions: Any) -> list[float]:
    """Return the fractions of a study; none if they are no fractions, which the check of the study reports."""
    with contextlib.suppress(ValidationError):
        return [*_FRACTIONS.validate_python(fractions)]
    return []


def _entry(written: Any) -> MetricEntry | None:
    """Return a metric of a study; None if it is wrong, which the check of the study reports."""
    with contextlib.suppress(ValueError, TypeError):
        return MetricEntry.model_validate(written)
    return None
