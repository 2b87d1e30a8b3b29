"""The rows of a report, and the methods that make their maps: read from the study alone."""

from dataclasses import dataclass

from efface.plug.call import Call
from efface.study.schema import MethodEntry
from efface.study.study import Study


@dataclass(frozen=True)
class View:
    """A row of the report: maps, and what is done to them on reading.

    draw: which draw of its maps it shows. draw_of: the row that it is another draw of; "" for the row itself.
    control: whether its maps are a control's, which knows nothing of the network.
    """

    name: str
    maps: str
    post: tuple[Call, ...] | None
    draw_of: str = ""
    draw: int = 1
    control: bool = False


NETWORK = View("network", "", None)
"""The row of a metric of the network: no maps."""


def views_of(study: Study) -> tuple[View, ...]:
    """The rows of a study's report, each with its further draws after it."""
    listed = study.attribution_methods
    makers = {name: entry for entry in listed for name in entry.gives}
    views = []
    for entry in listed:
        for name in entry.gives:
            maps = entry.maps or name
            control = makers[maps].is_control
            views.append(View(name, maps, entry.post, control=control))
            more = range(2, makers[maps].draws + 1)
            views += [View(f"{name}~{n}", f"{maps}~{n}", entry.post, name, n, control) for n in more]
    return tuple(views)


def extracted_entries(study: Study) -> tuple[MethodEntry, ...]:
    """The methods that make maps, an entry for each draw."""
    own = (each for each in study.attribution_methods if each.maps is None)
    return tuple(drawn for each in own for drawn in each.each_draw())
