"""The points of a metric's curve, its repeats, and the rounds of a study that decides as it measures."""

import math

from efface.metrics import Point
from efface.plug.call import Call
from efface.report.stats import Looks
from efface.stages.run.run import Run
from efface.stages.run.views import View
from efface.study.claims import listed_points
from efface.study.metric_entry import MetricEntry

FIRST_IMAGES, FIRST_REPEATS = 20, 3
"""Images and repeats of the first round. Fewer repeats have no test."""
ENOUGH_TO_BET = 1_000
"""Test images from which on betting costs about as much as spending (docs/reliability.md)."""
MORE_IMAGES, MORE_REPEATS = 4 / 3, 1.5
"""Factor by which the measured images or repeats grow from one round to the next."""


def axis_points(run: Run, entry: MetricEntry) -> tuple[float, ...]:
    """The points of a metric's curve, ascending; 0 is always among them, unless the metric has points of its own."""
    if (listed := listed_points(entry, run.study.fractions)) is not None:
        return listed
    assert entry.formula.points_for is not None
    return entry.formula.points_for(run.data["test"].shape)


def repeats_of(run: Run, entry: MetricEntry) -> int:
    """Return the number of trainings of a point. A frozen network has one score."""
    return (
        (entry.kwargs.repeats or entry.paper.repeats or run.study.repeats) if entry.formula.sample == "repeats" else 1
    )


def point_of(run: Run, entry: MetricEntry, view: View, x: float, repeat: int = 0) -> Point:
    """A point of a view's curve. The view's own post comes before the metric's, and that before the study's.

    ValueError: the unit asks for the patches of a network that has none.
    """
    own, paper, study = entry.kwargs, entry.paper, run.study
    post = next(stated for stated in (view.post, own.post, paper.post, study.post) if stated is not None)
    post = post if view.blur is None else (*post, view.blur)
    imputer = own.imputer or paper.imputer or study.imputer
    unit = own.unit or paper.unit or study.unit
    return Point(x, repeat, imputer, tuple(post), run.unit_of(unit) if isinstance(unit, Call) else unit)


def looks_of(run: Run, entry: MetricEntry, *, methods: int, in_blocks: bool) -> Looks | None:
    """Return after how many images or repeats a study that decides looks at a metric; None if it measures it at once.

    methods: number of methods that the metric applies to. One method is in no pair that could be decided.
    in_blocks: whether the probes of the metric can measure blocks of images.
    """
    decide, formula = run.study.decide, entry.formula
    if decide is None or methods < 2 or next(iter(entry.direction.values())) == "none":
        return None
    if formula.sample == "repeats":
        return Looks(growing(FIRST_REPEATS, repeats_of(run, entry), MORE_REPEATS), "spending", decide.level)
    images = len(run.data["test"])
    by = decide.by or ("betting" if images >= ENOUGH_TO_BET else "spending")
    return Looks(growing(FIRST_IMAGES, images, MORE_IMAGES), by, decide.level) if in_blocks else None


def growing(first: int, count: int, factor: float) -> tuple[int, ...]:
    """Return after how many samples the rounds end: `first`, then `factor` times as many, up to `count`.

    A last round of less than half of its share is part of the one before.
    """
    ends = [min(first, count)]
    while ends[-1] < count:
        more = math.ceil(ends[-1] * factor)
        ends.append(count if more + (factor - 1) * more / 2 > count else more)
    return tuple(ends)
