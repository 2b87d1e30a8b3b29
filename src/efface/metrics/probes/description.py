"""The description of a probe for a table, and the values of a map that a probe reads."""

import dataclasses
from typing import Any, Literal, NamedTuple

from efface.metrics.probes.erasure import Erasure
from efface.metrics.probes.probe import Describes, Description, Needs, Probe, ReadsValues
from efface.plug.call import Call

NONE = "none"
KINDS = tuple(field.name for field in dataclasses.fields(Description))
COUNT = "floor(fraction * units + 1e-6)"
SHUFFLED = "shuffled by the image's seed"
SHARED = "shared: the mean over all orders"


class Reading(NamedTuple):
    """The changes of a map before a probe reads it, and the values that the map must then have.

    values: `pixel`: one for each pixel. `feature`: one for each channel, or one for all channels. None: either.
    """

    post: tuple[Call, ...]
    values: Literal["pixel", "feature"] | None


def describe(probe: Probe) -> Description:
    """Return the description of a probe: its own, or that of its fields and its erasure."""
    return probe.describe() if isinstance(probe, Describes) else by_fields(probe)


def by_fields(probe: Any) -> Description:
    """Return the description from a probe's erasure, or from its fields `unit` and `imputer`, or from `map_values`."""
    for field in dataclasses.fields(probe):
        if isinstance(erasure := getattr(probe, field.name), Erasure):
            return _of_erasure(erasure, trains=not probe.needs.network)
    fields = fields_of(probe)
    unit = fields.get("unit", probe.map_values if isinstance(probe, ReadsValues) else NONE)
    return Description(unit=text(unit), imputer=text(fields.get("imputer", NONE)))


def reading(probe: Probe) -> Reading | None:
    """Return how a probe reads maps, or None if it reads none."""
    if not probe.needs.of_method:
        return None
    fields = fields_of(probe)
    values = probe.map_values if isinstance(probe, ReadsValues) else fields.get("unit")
    return Reading(tuple(fields.get("post", ())), "pixel" if isinstance(values, Call) else values)


def fields_of(probe: Any) -> dict[str, Any]:
    """Return the fields of a probe. The fields of its erasure are among them."""
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(probe):
        value = getattr(probe, field.name)
        if isinstance(value, Needs):
            continue
        fields |= fields_of(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return fields


def text(value: Any) -> str:
    """Return a unit or an imputer with its settings in one line."""
    if not isinstance(value, Call):
        return str(value)
    kwargs = ", ".join(f"{name}={setting}" for name, setting in value.kwargs.items())
    return f"{value.call}({kwargs})" if kwargs else value.call


def _of_erasure(erasure: Erasure, *, trains: bool) -> Description:
    fill = NONE if erasure.shown == "mask" else text(erasure.imputer)
    if erasure.fraction == 0:  # a training's crop may have a border to fill
        return Description(imputer=fill if trains else NONE)
    if erasure.fraction == 1:
        return Description(imputer=fill, count=COUNT)
    ties = NONE if erasure.order == "random" else SHUFFLED
    return Description(text(erasure.unit), fill, ties, COUNT)
