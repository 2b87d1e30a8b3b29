"""The points of a metric's curve, its repeats, and the rounds of a study that decides as it measures."""

import math

import numpy as np
import torch

from efface.base.types import Unit
from efface.erase.contract import labels_of
from efface.erase.masking import to_float
from efface.metrics import Point
from efface.plug.call import Call
from efface.report.stats import Looks
from efface.stages.run.run import Run
from efface.stages.run.views import View
from efface.store.arrays import read_rows
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
    if entry.kwargs.log_points is not None:
        return log_fractions(entry.kwargs.log_points, _units(run, unit_of(run, entry)))
    assert entry.formula.points_for is not None
    return entry.formula.points_for(run.data["test"].shape)


def most_points(run: Run, entry: MetricEntry) -> int:
    """Return the largest number of points that a metric may have. No unit forms its groups for this."""
    if not entry.formula.axis:
        return 1
    asked = entry.kwargs.log_points
    return len(axis_points(run, entry)) if asked is None else asked + 2


def log_fractions(count: int, units: int) -> tuple[float, ...]:
    """Return fractions that remove `count` numbers of units from 1 to all, evenly spaced in their logarithm; 0 and 1.

    The numbers are rounded, and equal ones count once.

    Source: Blücher, Vielhaben & Strodthoff 2024, released code (arXiv:2401.06654), with 15 numbers.
    """
    numbers = {0, *np.geomspace(1, units, count).round().astype(int).tolist(), units}
    return tuple(number / units for number in sorted(numbers))


def _units(run: Run, unit: Unit | Call) -> int:
    """Return the number of units of the first test image."""
    c, h, w = run.data["test"].shape
    if isinstance(unit, Call):
        if unit not in run.group_counts:
            first = to_float(read_rows(run.data["test"].images, torch.tensor([0])))
            try:
                run.group_counts[unit] = int(labels_of(unit, first).max()) + 1
            except ValueError:
                raise
            except Exception as error:
                raise ValueError(f"unit: {unit.call} fails: {type(error).__name__}: {error}") from error
        return run.group_counts[unit]
    return h * w if unit == "pixel" else c * h * w


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
    return Point(x, repeat, imputer, tuple(post), unit_of(run, entry))


def unit_of(run: Run, entry: MetricEntry) -> Unit | Call:
    """Return the unit of a metric. ValueError: it asks for the patches of a network that has none."""
    unit = entry.kwargs.unit or entry.paper.unit or run.study.unit
    return run.unit_of(unit) if isinstance(unit, Call) else unit


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
