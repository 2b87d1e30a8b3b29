"""Conventions: what a probe's number depends on, in words for a table, and how the probe reads a map."""

import dataclasses
from typing import Any, Literal, NamedTuple

from efface.metrics.probes.erasure import Erasure
from efface.plug.call import Call

NONE = "none"
KINDS = ("unit", "imputer", "ties", "count")
COUNT = "floor(fraction * units + 1e-6)"
SHUFFLED = "shuffled by the image's seed"
SHARED = "shared: the mean over all orders"


class Reading(NamedTuple):
    """What is done to a map before a probe looks at it, and the values that it then has to have.

    values: `pixel` for one of each pixel, `feature` for one of each channel, or one for all of them; None for either.
    """

    post: tuple[Call, ...]
    values: Literal["pixel", "feature"] | None


def conventions(probe: Any) -> dict[str, str]:
    """A probe's `unit`, `imputer`, `ties` and `count`; "none" for what it has no use for.

    Its own `conventions` count; what they leave out is what it erases, or its fields of these names.
    """
    own = dict(getattr(probe, "conventions", {}))
    return dict.fromkeys(KINDS, NONE) | _of_fields(probe) | own


def reading(probe: Any) -> Reading | None:
    """How a probe reads maps; None where it reads none."""
    if not (probe.needs_map or getattr(probe, "needs_method", False)):
        return None
    found = settings(probe)
    values = getattr(probe, "takes", found.get("unit"))
    return Reading(tuple(found.get("post", ())), "pixel" if isinstance(values, Call) else values)


def settings(probe: Any) -> dict[str, Any]:
    """A probe's fields, those of an erasure among them as if they were its own."""
    found: dict[str, Any] = {}
    for each in dataclasses.fields(probe):
        value = getattr(probe, each.name)
        found |= settings(value) if dataclasses.is_dataclass(value) else {each.name: value}
    return found


def text(value: Any) -> str:
    """A unit or a fill with its settings, in one line."""
    if not isinstance(value, Call):
        return str(value)
    told = ", ".join(f"{name}={each}" for name, each in value.kwargs.items())
    return f"{value.call}({told})" if told else value.call


def _of_fields(probe: Any) -> dict[str, str]:
    for each in dataclasses.fields(probe):
        if isinstance(erasure := getattr(probe, each.name), Erasure):
            return _of_erasure(erasure, trains=not probe.needs_network)
    unit = getattr(probe, "unit", getattr(probe, "takes", NONE))
    return {"unit": text(unit), "imputer": text(getattr(probe, "imputer", NONE))}


def _of_erasure(erasure: Erasure, *, trains: bool) -> dict[str, str]:
    fill = NONE if erasure.shown == "mask" else text(erasure.imputer)
    if erasure.fraction == 0:  # a training's crop may have a border to fill
        return {"imputer": fill if trains else NONE}
    if erasure.fraction == 1:
        return {"imputer": fill, "count": COUNT}
    ties = NONE if erasure.order == "random" else SHUFFLED
    return {"unit": text(erasure.unit), "imputer": fill, "ties": ties, "count": COUNT}
