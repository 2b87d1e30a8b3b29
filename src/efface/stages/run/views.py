"""The rows of a report, and the methods that make their maps: read from the study alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from efface.base.types import Knows
from efface.plug.call import Call
from efface.study.schema import MethodEntry
from efface.study.study import Study

_NARROWEST = 4
"""With fewer pixels on a side, a blurred map is nearly flat."""


@dataclass(frozen=True)
class View:
    """A row of the report: maps, and what is done to them on reading.

    draw: which draw of its maps it shows. draw_of: the row that it is another draw of; "" for the row itself.
    control: whether its maps are a control's.
    twin_of: the row whose maps this one blurs; "" for a row of the study. Twins stand beside retrained scores alone.
    blur: the step that a twin adds behind any other `post`.
    apart: for a random control, how many draws lie between the maps of one training and the next; 0: all trainings
        have the same maps.
    knows: what a control knows of the network.
    """

    name: str
    maps: str
    post: tuple[Call, ...] | None
    draw_of: str = ""
    draw: int = 1
    control: bool = False
    apart: int = 0
    twin_of: str = ""
    blur: Call | None = None
    knows: Knows = "nothing"

    @property
    def is_further(self) -> bool:
        """True if it is no row of the report by itself: a further draw, or a blurred twin."""
        return bool(self.draw_of or self.twin_of)

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
            knows = makers[maps].knows
            views.append(View(name, maps, entry.post, control=control, apart=apart, knows=knows))
            more = range(2, makers[maps].draws + 1)
            views += [
                View(f"{name}~{n}", f"{maps}~{n}", entry.post, name, n, control, apart, knows=knows) for n in more
            ]
    return tuple(views)


def twins_of(views: Sequence[View], shape: tuple[int, int, int]) -> tuple[View, ...]:
    """Return the blurred twin of each row that is no control, for images of this shape (c h w).

    The standard deviation is a sixteenth of the shorter side, at least one pixel. Maps without height and width have no
    twins.
    """
    side = min(shape[1:])
    if side < _NARROWEST:
        return ()
    blur = Call(call="efface.erase.post.gaussian_blur", kwargs={"sigma": max(1.0, side / 16)})
    own = (view for view in views if not view.control and not view.draw_of)
    return tuple(replace(view, name=f"{view.name}+blurred", twin_of=view.name, blur=blur) for view in own)


def extracted_entries(study: Study) -> tuple[MethodEntry, ...]:
    """The methods that make maps, an entry for each draw."""
    own = (entry for entry in study.attribution_methods if entry.maps is None)
    repeats = most_repeats(study)
    return tuple(drawn for entry in own for drawn in entry.each_draw(repeats))


def most_repeats(study: Study) -> int:
    """Return the largest number of trainings of a point; 1 if no metric trains."""
    trained = [metric for metric in study.metrics if metric.formula.sample == "repeats"]
    return max((metric.kwargs.repeats or metric.paper.repeats or study.repeats for metric in trained), default=1)
