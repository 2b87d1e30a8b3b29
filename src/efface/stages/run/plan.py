"""The plan of a run: every probe that its metrics need, with the key of its result. Keys depend on trained networks.

study -> plan -> executor -> results -> curves -> page. Measuring, `check`, `status` and the report read the same plan.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from efface.methods.calling import is_class
from efface.metrics import Point, check_metric
from efface.metrics.probes import Block, Degeneracy, Probe
from efface.metrics.probes.block import whole_of
from efface.metrics.probes.description import reading
from efface.plug.call import Call
from efface.report.stats import Looks
from efface.stages.run.map_files import map_store, provenance
from efface.stages.run.points import axis_points, looks_of, most_points, point_of, repeats_of
from efface.stages.run.provenance import measured_areas, probe_code
from efface.stages.run.run import Run
from efface.stages.run.views import NETWORK, View
from efface.store.keys import key as key_of
from efface.store.keys import versions
from efface.store.results import Results
from efface.study.claims import no_point
from efface.study.metric_entry import MetricEntry
from efface.study.schema import Claim, Side


@dataclass(frozen=True)
class ProbeTask:
    """One probe on the maps of one view; of no view where it erases nothing, or everything.

    key: of its result. reads: the maps that it needs, by name and split. metric: of the study, for which it is planned.
    """

    view: View | None
    probe: Probe
    key: str
    reads: frozenset[tuple[str, str]] = frozenset()
    metric: str = field(default="", compare=False)


@dataclass(frozen=True)
class PlannedPoint:
    """One point of a curve and the tasks whose scores give its value, by the names that the metric knows them by."""

    point: Point
    tasks: Mapping[str, ProbeTask]


@dataclass(frozen=True)
class PlannedCurve:
    """A metric on the maps of a view.

    at: the points of the axis, ascending. repeats: for each repeat, a planned point for each of them.
    looks: for a study that measures in rounds, the moments at which it may stop. In a metric over images, each repeat
        is then a block of images.
    """

    entry: MetricEntry
    view: View
    at: tuple[float, ...]
    repeats: tuple[tuple[PlannedPoint, ...], ...]
    looks: Looks | None = None

    @property
    def points(self) -> Iterator[PlannedPoint]:
        """All points, repeat by repeat."""
        return (point for repeat in self.repeats for point in repeat)


@dataclass(frozen=True)
class Plan:
    """The tasks that a study needs. It is a value: it reads no file and does not change when results arrive.

    curves: by metric, then by view. conditions: by view, the task that tells whether its maps are fit to be scored.
    redrawn: views whose ranking is drawn anew in each epoch. problems: metrics that cannot be planned, in words.
    """

    curves: tuple[PlannedCurve, ...]
    conditions: Mapping[str, ProbeTask]
    redrawn: frozenset[str]
    problems: tuple[str, ...] = ()

    @cached_property
    def tasks(self) -> tuple[ProbeTask, ...]:
        """Every task once, in the order in which they are worth running: given networks before trainings."""
        by_key = {task.key: task for task in self.conditions.values()}
        for curve in self.curves:
            for point in curve.points:
                for task in point.tasks.values():
                    by_key.setdefault(task.key, task)
        return tuple(sorted(by_key.values(), key=_running_order))

    def open(self, results: Results) -> list[ProbeTask]:
        """The tasks that have no result yet."""
        return [task for task in self.tasks if task.key not in results]

    def of(self, entry: MetricEntry) -> list[PlannedCurve]:
        """The curves of one metric."""
        return [curve for curve in self.curves if curve.entry == entry]


def _running_order(task: ProbeTask) -> tuple[bool, str]:
    return not task.probe.needs.network, task.view.name if task.view else ""


MOST_POINTS = 500_000  # of a run: each is planned, and its result is a line of the results


def make_plan(run: Run) -> Plan:
    """Plan every metric of the run's study. A metric that refuses its settings stands in `problems`.

    ValueError: the study has too many points.
    """
    _refuse_too_many(run)
    keys, redrawn = Keys(run), frozenset(view.name for view in run.views if _is_redrawn(run, view))
    curves, problems = list[PlannedCurve](), list[str]()
    for entry in run.study.metrics:
        try:
            if wrong := _wrong(run, entry, redrawn):
                problems += wrong
                continue
            views = viewed(run, entry, redrawn)
            curves += [_planned(run, keys, entry, view, len(views)) for view in views]
        except ValueError as error:
            problems.append(f"metrics.{entry.name}: {str(error).removeprefix(f'{entry.name}: ')}")
    if run.study.decide is not None and not any(curve.looks is not None for curve in curves) and not problems:
        problems.append(
            "decide: no metric of this study can be measured in rounds; it takes two methods and a metric that judges "
            "maps, over repeats or over images whose probes state Needs(blocks=True); drop 'decide', or add what lacks"
        )
    conditions = {}
    for view in (row for row in run.views if row.name not in redrawn):
        with contextlib.suppress(ValueError, AttributeError):  # stands in the problems already
            if (point := ranked_as(run, redrawn, view)) is not None:
                probe = Degeneracy(point.post, point.unit, asks=run.entry_of_maps(view.maps).file is None)
                conditions[view.name] = keys.task(view, probe)
    return Plan(tuple(curves), conditions, redrawn, tuple(problems))


def _refuse_too_many(run: Run) -> None:
    """Raise ValueError for a study that cannot be planned in a minute."""
    points = 0
    for metric in run.study.metrics:
        points += len((*run.views, *run.twins)) * repeats_of(run, metric) * most_points(run, metric)
        if points > MOST_POINTS:
            said = f"metrics: the study has {points:,} points up to '{metric.name}'; expected at most {MOST_POINTS:,}"
            raise ValueError(f"{said}: list fewer fractions, repeats or methods")


def _wrong(run: Run, entry: MetricEntry, redrawn: frozenset[str]) -> list[str]:
    """Return what is wrong with the parts of a metric and of its probes, in words."""
    view = (viewed(run, entry, redrawn) or run.views)[0]
    points = (point_of(run, entry, view, x) for x in axis_points(run, entry))
    return check_metric(f"metrics.{entry.name}", entry.formula, points)


def _planned(run: Run, keys: "Keys", entry: MetricEntry, view: View, methods: int) -> PlannedCurve:
    at = axis_points(run, entry)
    points = [[point_of(run, entry, view, x, repeat) for x in at] for repeat in range(repeats_of(run, entry))]
    table = [[(point, entry.formula.probes(point)) for point in row] for row in points]
    in_blocks = all(probe.needs.blocks for row in table for _, probes in row for probe in probes.values())
    looks = looks_of(run, entry, methods=methods, in_blocks=in_blocks)
    if looks is not None and entry.formula.sample == "images":
        blocks = itertools.pairwise((0, *looks.after))
        table = [
            [(point, {name: Block(probe, *ends) for name, probe in probes.items()}) for point, probes in table[0]]
            for ends in blocks
        ]

    def planned(point: Point, probes: Mapping[str, Probe]) -> PlannedPoint:
        drawn = {name: view if probe.needs.network else view.of_repeat(point.repeat) for name, probe in probes.items()}
        return PlannedPoint(point, {name: keys.task(drawn[name], probe, entry) for name, probe in probes.items()})

    return PlannedCurve(entry, view, at, tuple(tuple(planned(*cell) for cell in row) for row in table), looks)


def viewed(run: Run, entry: MetricEntry, redrawn: frozenset[str]) -> list[View]:
    """The rows of a metric: the network alone, or those views that the metric applies to.

    A ranking that is drawn anew in each epoch only makes sense for retraining: for a fixed network it is `random`.
    """
    if entry.formula.subject == "network":
        return [NETWORK]
    retrains = entry.formula.sample == "repeats"
    twins = run.twins if entry.formula.outline else ()
    return [*(view for view in run.views if retrains or view.name not in redrawn), *twins]


def of_maps(run: Run) -> list[MetricEntry]:
    """The metrics that are measured for the maps of each method."""
    return [entry for entry in run.study.metrics if entry.formula.subject == "maps"]


def ranked_as(run: Run, redrawn: frozenset[str], view: View, x: float = 0.0) -> Point | None:
    """The post-processing and the unit by which a view's maps are shown and checked; None where no metric reads them.

    They are those of the first metric that erases by the maps, else of the first that uses `post`. Where that metric
    takes maps as they are, their channels are summed.
    """
    applied = [metric for metric in of_maps(run) if view in viewed(run, metric, redrawn)]
    reducing = [metric for metric in applied if "post" in metric.formula.uses]
    erasing = [metric for metric in reducing if metric.formula.erases]
    if not applied:
        return None
    entry = (erasing or reducing or applied)[0]
    point = point_of(run, entry, view, x)
    if "unit" in entry.formula.uses:
        return point
    readings = [reading(probe) for probe in entry.formula.probes(point).values()]
    values = next((probe_reading.values for probe_reading in readings if probe_reading is not None and reducing), None)
    if values is None:
        summed = (*(point.post if reducing else ()), Call(call="efface.erase.post.channel_sum"))
        return dataclasses.replace(point, post=summed, unit="pixel")
    return dataclasses.replace(point, unit=values)


class _Uses(NamedTuple):
    """The parts of its run that a probe uses."""

    maps: str | None
    splits: tuple[str, ...]
    network: bool
    training: bool
    second_network: bool
    areas: tuple[str, ...]
    code: str


class Keys:
    """Keys of results. What many tasks share is digested once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._shared: dict[_Uses, str] = {}
        self._codes: dict[tuple[type, str], str] = {}

    def task(self, view: View, probe: Probe, entry: MetricEntry | None = None) -> ProbeTask:
        """A probe on a view's maps, with the key of its result. entry: its metric; None for one of no metric."""
        read = probe.needs.of_method
        splits = ("test",) if probe.needs.network else ("train", "test")
        maps = view.maps if read else None
        trains = not probe.needs.network or probe.needs.training
        kind, metric = type(whole_of(probe)), entry.path if entry else ""
        if (kind, metric) not in self._codes:
            self._codes[kind, metric] = key_of(probe_code(kind, metric))
        second, areas = probe.needs.second_network, measured_areas(probe.needs)
        uses = _Uses(maps, splits, probe.needs.network, trains, second, areas, self._codes[kind, metric])
        if uses not in self._shared:
            self._shared[uses] = key_of(self._depends(uses))
        key = key_of({"probe": probe.identity(), "shared": self._shared[uses]})
        maps_read, named = frozenset((view.maps, split) for split in splits if read), entry.name if entry else ""
        return ProbeTask(view if read else None, probe, key, maps_read, named)

    def _depends(self, uses: _Uses) -> dict[str, Any]:
        """All that a result depends on besides its probe."""
        run = self._run
        what: dict[str, Any] = {"data": run.data_digest, "seed": run.study.seed}
        what |= {"versions": versions(*uses.areas), "code": uses.code}
        if uses.network:
            what |= {"network": run.network_digest, "explain": run.study.explain}
        if uses.training:
            assert run.refit is not None
            what |= {"model": run.study.model.identity() | run.first.adaptation.identity(), "fit": run.refit.identity()}
        if uses.second_network:
            what["second_network"] = run.second.digest if run.study.second_network is not None else "none"
        if uses.maps is not None:
            entry = run.entry_of_maps(uses.maps)
            what["maps"] = {split: provenance(run, entry, uses.maps, split) for split in uses.splits}
        return what


def pointless(claims: Sequence[Claim], runs: Mapping[str, Run]) -> Iterator[str]:
    """Claims at points that their metrics do not have on these data; runs: one of each variant."""
    for claim in claims:
        sides = [side for side in (claim.more, claim.less) if isinstance(side, Side) and claim.at is not None]
        named = [runs[side.variant] for side in sides if side.variant in runs]
        points = [
            axis_points(run, metric) for run in named for metric in run.study.metrics if metric.name == claim.metric
        ]
        problems = dict.fromkeys(no_point(claim, point) for point in points)
        yield from (f"claims.{claim.says}: {problem}" for problem in problems if problem)


def _is_redrawn(run: Run, view: View) -> bool:
    """Return whether the maps of a view are seeds. Only a method that takes seeds can return them."""
    entry = run.entry_of_maps(view.maps)
    if entry.file is None and entry.batched and not is_class(entry.call) and not entry.call.wants("seeds"):
        return False
    with contextlib.suppress(ValueError, FileNotFoundError):  # not there yet, or not this study's
        return map_store(run, view.maps, "test").kind == "seeds"
    return entry.is_redrawn
