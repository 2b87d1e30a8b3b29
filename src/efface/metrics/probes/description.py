"""How a probe is described for a table, and how it reads a map."""

import dataclasses
from typing import Any, Literal, NamedTuple

from efface.metrics.probes.contract import Describes, Description, Needs, Probe, ReadsValues
from efface.metrics.probes.erasure import Erasure
from efface.plug.call import Call

NONE = "none"
KINDS = tuple(each.name for each in dataclasses.fields(Description))
COUNT = "floor(fraction * units + 1e-6)"
SHUFFLED = "shuffled by the image's seed"
SHARED = "shared: the mean over all orders"


class Reading(NamedTuple):
    """What is done to a map before a probe looks at it, and the values that it then has to have.

    values: `pixel` for one of each pixel, `feature` for one of each channel, or one for all of them; None for either.
    """

    post: tuple[Call, ...]
    values: Literal["pixel", "feature"] | None


def describe(probe: Probe) -> Description:
    """A probe's description: its own, or what its fields and its erasure say."""
    return probe.describe() if isinstance(probe, Describes) else by_fields(probe)


def by_fields(probe: Any) -> Description:
    """What a probe's erasure says, or its fields `unit` and `imputer`; without a unit, the values of a map it reads."""
    for each in dataclasses.fields(probe):
        if isinstance(erasure := getattr(probe, each.name), Erasure):
            return _of_erasure(erasure, trains=not probe.needs.network)
    found = settings(probe)
    unit = found.get("unit", probe.map_values if isinstance(probe, ReadsValues) else NONE)
    return Description(unit=text(unit), imputer=text(found.get("imputer", NONE)))


def reading(probe: Probe) -> Reading | None:
    """How a probe reads maps; None where it reads none."""
    if not probe.needs.of_method:
        return None
    found = settings(probe)
    values = probe.map_values if isinstance(probe, ReadsValues) else found.get("unit")
    return Reading(tuple(found.get("post", ())), "pixel" if isinstance(values, Call) else values)


def settings(probe: Any) -> dict[str, Any]:
    """A probe's fields, those of an erasure among them as if they were its own."""
    found: dict[str, Any] = {}
    for each in dataclasses.fields(probe):
        value = getattr(probe, each.name)
        if isinstance(value, Needs):
            continue
        found |= settings(value) if dataclasses.is_dataclass(value) else {each.name: value}
    return found


def text(value: Any) -> str:
    """A unit or a fill with its settings, in one line."""
    if not isinstance(value, Call):
        return str(value)
    told = ", ".join(f"{name}={each}" for name, each in value.kwargs.items())
    return f"{value.call}({told})" if told else value.call


def _of_erasure(erasure: Erasure, *, trains: bool) -> Description:
    fill = NONE if erasure.shown == "mask" else text(erasure.imputer)
    if erasure.fraction == 0:  # a training's crop may have a border to fill
        return Description(imputer=fill if trains else NONE)
    if erasure.fraction == 1:
        return Description(imputer=fill, count=COUNT)
    ties = NONE if erasure.order == "random" else SHUFFLED
    return Description(text(erasure.unit), fill, ties, COUNT)
