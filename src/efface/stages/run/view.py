"""The rows of a study's report."""

from dataclasses import dataclass

from efface.plug.call import Call
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


def views(study: Study) -> list[View]:
    """The rows of a study's report, each with its draws after it."""
    listed = study.attribution_methods
    makers = {name: each for each in listed for name in each.gives}
    found = []
    for each in listed:
        for name in each.gives:
            maps = each.maps or name
            control = makers[maps].is_control
            found.append(View(name, maps, each.post, control=control))
            more = range(2, makers[maps].draws + 1)
            found += [View(f"{name}~{n}", f"{maps}~{n}", each.post, name, n, control) for n in more]
    return found
