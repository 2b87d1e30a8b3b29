"""The probes that a study's metrics need, each once, with the key of its result."""

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from efface.metrics import Point
from efface.metrics.probes import Degeneracy
from efface.metrics.probes.description import reading
from efface.plug.call import Call
from efface.stages.run.provenance import ERASING, engine, measurer
from efface.stages.run.run import Run
from efface.stages.run.view import View
from efface.store.keys import key as key_of
from efface.study.claims import listed_points, no_point
from efface.study.schema import Claim, MetricEntry, Side
from efface.types import Seeds


@dataclass(frozen=True)
class Cell:
    """One probe on the maps of one view; of no view where it erases nothing, or everything."""

    view: View | None
    probe: Any
    key: str


NETWORK = View("network", "", None)
"""The row of a metric of the network: no maps."""


def cells(run: Run) -> list[Cell]:
    """Every probe that the study's metrics need, once each, in the order in which they are worth running.

    Before a view's scores comes the probe that says whether its maps are fit to be scored, as the first metric that
    erases ranks them.
    """
    found: dict[str, Cell] = {}
    for view in run.views():
        point = ranked_as(run, view)
        if point is not None and not _is_redrawn(run, view):
            cell = cell_of(run, view, Degeneracy(point.post, "feature" if point.unit == "feature" else "pixel"))
            found[cell.key] = cell
    for entry in run.study.metrics:
        for view in viewed(run, entry):
            for point in points(run, entry, view):
                for probe in entry.formula.probes(point).values():
                    cell = cell_of(run, view, probe)
                    found.setdefault(cell.key, cell)
    return sorted(found.values(), key=lambda cell: (not cell.probe.needs_network, cell.view.name if cell.view else ""))


def ranked_as(run: Run, view: View, fraction: float = 0.0) -> Point | None:
    """How the view's maps are taken by the first metric that erases by them, else by the first that reduces them.

    Their channels are summed at the end where that metric, or all of them, takes maps as they are. None where no metric
    reads them.
    """
    applied = [each for each in of_maps(run) if applies(run, each, view)]
    reducing = [each for each in applied if "post" in each.formula.reads]
    erasing = [each for each in reducing if each.formula.axis == "fraction removed"]
    if not applied:
        return None
    entry = (erasing or reducing or applied)[0]
    point = point_of(run, entry, view, fraction)
    if "unit" in entry.formula.reads:
        return point
    found = [reading(probe) for probe in entry.formula.probes(point).values()]
    values = next((each.values for each in found if each is not None and reducing), None)
    if values is None:
        summed = (*(point.post if reducing else ()), Call(call="efface.erase.post.channel_sum"))
        return dataclasses.replace(point, post=summed, unit="pixel")
    return dataclasses.replace(point, unit=values)


def of_maps(run: Run) -> list[MetricEntry]:
    """The metrics that are measured for the maps of each method."""
    return [each for each in run.study.metrics if each.formula.of == "maps"]


def viewed(run: Run, entry: MetricEntry) -> list[View]:
    """The rows of a metric: those views that it applies to, or the network alone."""
    if entry.formula.of == "network":
        return [NETWORK]
    return [view for view in run.views() if applies(run, entry, view)]


def applies(run: Run, entry: MetricEntry, view: View) -> bool:
    """A ranking that is drawn anew each epoch is no other than `random` to a network that does not train."""
    return entry.formula.over == "repeats" or not _is_redrawn(run, view)


def unmet(run: Run) -> list[str]:
    """Metrics that ask for what the data do not have."""
    without = run.data["test"].masks is None
    needing = [entry.name for entry in run.study.metrics if without and _asks(run, entry, "needs_masks")]
    unjudged = [entry.name for entry in run.study.metrics if not run.study.judge and _asks(run, entry, "needs_judge")]
    return [
        f"metrics.{name}: asks a second network, but the study has no 'judge'; add judge: {{model: ..., fit: ...}}"
        for name in unjudged
    ] + [
        f"metrics.{name}: needs the masks of the true object, which {run.study.data.call} does not give; "
        "choose data that have them, such as efface.data.patches.patches, or drop this metric"
        for name in needing
    ]


def across(run: Run, entry: MetricEntry) -> tuple[float, ...]:
    """The points of a metric's curve, ascending; 0 is always among them, unless the metric has points of its own."""
    if (listed := listed_points(entry, run.study.fractions)) is not None:
        return listed
    assert entry.formula.at is not None
    return entry.formula.at(run.data["test"].shape)


def points(run: Run, entry: MetricEntry, view: View) -> Iterator[Point]:
    """The points of a view's curve, repeat by repeat; the view's own post beats the metric's, that the study's."""
    for repeat in range(repeats(run, entry)):
        for fraction in across(run, entry):
            yield point_of(run, entry, view, fraction, repeat)


def repeats(run: Run, entry: MetricEntry) -> int:
    """How many trainings a point has; a frozen network has one score."""
    return (entry.kwargs.repeats or entry.paper.repeats or run.study.repeats) if entry.formula.over == "repeats" else 1


def point_of(run: Run, entry: MetricEntry, view: View, fraction: float, repeat: int = 0) -> Point:
    """A point of a view's curve, with the settings that count for it."""
    own, paper, study = entry.kwargs, entry.paper, run.study
    post = next(each for each in (view.post, own.post, paper.post, study.post) if each is not None)
    imputer = own.imputer or paper.imputer or study.imputer
    return Point(fraction, repeat, imputer, tuple(post), own.unit or paper.unit or study.unit)


def cell_of(run: Run, view: View, probe: Any) -> Cell:
    """A probe on a view's maps, with the key that its result has."""
    of = view if probe.needs_map or asks_method(probe) else None
    what: dict[str, Any] = {
        "probe": probe.identity(),
        "data": run.data_digest,
        "seed": run.study.seed,
        "engine": engine(),
    }
    if probe.needs_network:
        what |= {"network": run.network_digest, "explain": run.study.explain}
    if not probe.needs_network or getattr(probe, "needs_fit", False):
        assert run.refit is not None
        what |= {"model": run.study.model.identity(), "fit": run.refit.identity()}
    if needs_judge(probe):
        what["judge"] = run.second.digest
    if (module := type(probe).__module__) not in ERASING:
        what["source"] = measurer(module)
    if of is not None:
        entry = next(each for each in run.entries() if of.maps in each.gives)
        read = ("test",) if probe.needs_network else ("train", "test")
        what["maps"] = {split: run.provenance(entry, of.maps, split) for split in read}
    return Cell(of, probe, key_of(what))


def needs_judge(probe: Any) -> bool:
    """Whether a probe asks the study's second network."""
    return getattr(probe, "needs_judge", False)


def asks_method(probe: Any) -> bool:
    """Whether a probe asks the method again."""
    return getattr(probe, "needs_method", False)


def _asks(run: Run, entry: MetricEntry, what: str) -> bool:
    first = point_of(run, entry, (viewed(run, entry) or run.views())[0], across(run, entry)[-1])
    with contextlib.suppress(ValueError):  # a point that the metric does not take: said where it is planned
        return any(getattr(probe, what, False) for probe in entry.formula.probes(first).values())
    return False


def _is_redrawn(run: Run, view: View) -> bool:
    with contextlib.suppress(ValueError, FileNotFoundError):  # not there yet, or not this study's
        return run.store(view.maps, "test").kind == "seeds"
    entry = next(each for each in run.entries() if view.maps in each.gives)
    with contextlib.suppress(ValueError, TypeError):  # some callables have no signature
        return inspect.signature(entry.call.resolve()).return_annotation is Seeds
    return False


def pointless(claims: Sequence[Claim], runs: Mapping[str, Run]) -> Iterator[str]:
    """Claims at points that their metrics do not have on these data; runs: one of each variant."""
    for claim in claims:
        sides = [side for side in (claim.more, claim.less) if isinstance(side, Side) and claim.at is not None]
        there = [runs[side.variant] for side in sides if side.variant in runs]
        points = [across(run, each) for run in there for each in run.study.metrics if each.name == claim.metric]
        problems = dict.fromkeys(no_point(claim, each) for each in points)
        yield from (f"claims.{claim.says}: {problem}" for problem in problems if problem)
