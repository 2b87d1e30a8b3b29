"""The rows of a report, and the methods that make their maps: read from the study alone."""

from dataclasses import dataclass

from efface.plug.call import Call
from efface.study.schema import MethodEntry
from efface.study.study import Study


@dataclass(frozen=True)
class View:
    """A row of the report: maps, and what is done to them on reading.

    draw_of: the row that this is another draw of; "" for the row itself.
    """

    name: str
    maps: str
    post: tuple[Call, ...] | None
    draw_of: str = ""


NETWORK = View("network", "", None)
"""The row of a metric of the network: no maps."""


def views_of(study: Study) -> tuple[View, ...]:
    """The rows of the report, each followed by its further draws."""
    listed = study.attribution_methods
    draws = {name: each.draws for each in listed for name in each.gives}
    views = []
    for entry in listed:
        for name in entry.gives:
            maps = entry.maps or name
            views.append(View(name, maps, entry.post))
            more = range(2, draws[maps] + 1)
            views += [View(f"{name}~{n}", f"{maps}~{n}", entry.post, draw_of=name) for n in more]
    return tuple(views)


def extracted_entries(study: Study) -> tuple[MethodEntry, ...]:
    """The methods that make maps, an entry for each draw."""
    own = (each for each in study.attribution_methods if each.maps is None)
    return tuple(drawn for each in own for drawn in each.each_draw())
