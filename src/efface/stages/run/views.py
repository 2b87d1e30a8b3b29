"""The rows of a report, and the methods that make their maps: read from the study alone."""

from dataclasses import dataclass, replace

from efface.plug.call import Call
from efface.study.schema import MethodEntry
from efface.study.study import Study


@dataclass(frozen=True)
class View:
    """A row of the report: maps, and what is done to them on reading.

    draw: which draw of its maps it shows. draw_of: the row that it is another draw of; "" for the row itself.
    control: whether its maps are a control's, which knows nothing of the network.
    apart: for a random control, how many draws lie between the maps of one training and the next; 0: all trainings
        have the same maps.
    """

    name: str
    maps: str
    post: tuple[Call, ...] | None
    draw_of: str = ""
    draw: int = 1
    control: bool = False
    apart: int = 0

    def of_repeat(self, repeat: int) -> "View":
        """Return the view with the maps of one training. Each training of a random control has maps of its own.

        With the same maps in all trainings, more trainings would make the luck of these maps "significant".
        """
        if not self.apart or not repeat:
            return self
        first = self.maps.partition("~")[0]
        return replace(self, maps=f"{first}~{self.draw + repeat * self.apart}")


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
            apart = makers[maps].draws if makers[maps].varies else 0
            views.append(View(name, maps, entry.post, control=control, apart=apart))
            more = range(2, makers[maps].draws + 1)
            views += [View(f"{name}~{n}", f"{maps}~{n}", entry.post, name, n, control, apart) for n in more]
    return tuple(views)


def extracted_entries(study: Study) -> tuple[MethodEntry, ...]:
    """The methods that make maps, an entry for each draw."""
    own = (entry for entry in study.attribution_methods if entry.maps is None)
    repeats = most_repeats(study)
    return tuple(drawn for entry in own for drawn in entry.each_draw(repeats))


def most_repeats(study: Study) -> int:
    """Return the largest number of trainings of a point; 1 if no metric trains."""
    trained = [metric for metric in study.metrics if metric.formula.sample == "repeats"]
    return max((metric.kwargs.repeats or metric.paper.repeats or study.repeats for metric in trained), default=1)
