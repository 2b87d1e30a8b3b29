"""Stage measure: the probes of all metrics, less those already in the results, on any executor."""

import contextlib
import dataclasses
import functools
import inspect
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from efface.call import Call
from efface.claimed import listed_points
from efface.config import Study
from efface.entries import MetricEntry
from efface.execute import Failure
from efface.maps import key as key_of
from efface.metrics import Point
from efface.probes import Degeneracy
from efface.probes.conventions import conventions, reading, settings, text
from efface.results import Score
from efface.stages.explain import explainer_of
from efface.stages.extract import left
from efface.stages.here import here, keep_trace
from efface.stages.progress import Clock, bar, duration, say
from efface.stages.provenance import ERASING, engine, measurer, surroundings
from efface.stages.run import Run, View
from efface.stages.samples import make_samples, samples_of
from efface.stats import Curve
from efface.types import Seeds


@dataclass(frozen=True)
class Cell:
    """One probe on the maps of one view; of no view where it erases nothing, or everything."""

    view: View | None
    probe: Any
    key: str


@dataclass(frozen=True)
class Measure:
    """The work: calls a probe with the case it needs."""

    study: Study

    def __call__(self, cell: Cell) -> tuple[Score, dict[str, float]]:
        """The score, and the seconds it took."""
        run = here(self.study)
        clock = Clock()
        maps = {split: run.store(name, split) for name, split in _reads(cell)}
        frozen = cell.probe.needs_network
        explain = explainer_of(run, cell.view) if cell.view and asks_method(cell.probe) else None
        with contextlib.nullcontext() if frozen else run.scalars(cell.key) as log:
            case = run.case(maps, network=frozen, checkpoint=checkpoint_of(run, cell), cache=_RANKS, log=log)
            case = dataclasses.replace(case, explain=explain, samples=functools.partial(samples_of, run))
            return cell.probe(case), clock.seconds()


_RANKS: dict[Any, Any] = {}
NETWORK = View("network", "", None)
"""The row of a metric of the network: no maps."""


def measure(run: Run) -> list[str]:
    """Run what is not in the results yet and has its maps; sentences on what failed.

    ValueError: a metric asks for something that the data do not have.
    """
    if problems := unmet(run):
        raise ValueError("\nefface: ".join(problems))
    missing = _missing(run)
    tasks = [cell for cell in cells(run) if cell.key not in run.results and not missing & _reads(cell)]
    if not tasks:
        return []
    _verify(run, tasks)
    started, rows = time.monotonic(), {name: len(split) for name, split in run.data.items()}
    failures = make_samples(run, [cell.probe.sampling for cell in tasks if hasattr(cell.probe, "sampling")])
    before, total = len(failures), sum(cell.probe.costs(rows, run.refit) for cell in tasks)
    trainings = sum(not cell.probe.needs_network for cell in tasks)
    say(f"{len(tasks)} probes to run, {trainings} of them trainings")
    with bar(total, "measure", "row") as progress:
        for cell, outcome in run.study.executor(Measure(run.study), tasks, progress=progress.update):
            if isinstance(outcome, Failure):
                failures.append(f"{_named(cell)}: {outcome.message}")
                keep_trace(run, _named(cell), outcome)
                continue
            score, seconds = outcome
            run.results.append(_row(run, cell, seconds), score)
            checkpoint_of(run, cell).unlink(missing_ok=True)
    took = duration(time.monotonic() - started)
    say(f"{len(tasks) - len(failures) + before} of {len(tasks)} probes in {took}: {run.results.path}")
    return failures


def cells(run: Run) -> list[Cell]:
    """Every probe that the study's metrics need, once each, in the order in which they are worth running.

    Before a view's scores comes the probe that says whether its maps are fit to be scored, as the first metric that
    erases ranks them.
    """
    found: dict[str, Cell] = {}
    for view in run.views():
        point = ranked_as(run, view)
        if point is not None and not _is_redrawn(run, view):
            cell = _cell(run, view, Degeneracy(point.post, "feature" if point.unit == "feature" else "pixel"))
            found[cell.key] = cell
    for entry in run.study.metrics:
        for view in viewed(run, entry):
            for point in points(run, entry, view):
                for probe in entry.formula.probes(point).values():
                    cell = _cell(run, view, probe)
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
        summed = (*(point.post if reducing else ()), Call(call="efface.post.channel_sum"))
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


def curves(run: Run) -> list[Curve]:
    """The curves of all metrics and views, from the results alone; NaN where a probe has not run yet."""
    found = []
    for entry in run.study.metrics:
        for view in viewed(run, entry):
            found += _curves(run, entry, view)
    return found


def checkpoint_of(run: Run, cell: Cell) -> Path:
    """Where a retraining keeps its state between two epochs."""
    return run.folder / "partial" / f"{cell.key}.pt"


def _curves(run: Run, entry: MetricEntry, view: View) -> list[Curve]:
    formula, at = entry.formula, across(run, entry)
    table: dict[str, list[list[np.ndarray]]] = {name: [] for name in formula.better}
    missing: set[float] = set()
    for repeat in range(repeats(run, entry)):
        found_here = [_value(run, entry, view, point_of(run, entry, view, fraction, repeat)) for fraction in at]
        missing |= {where for where, value in zip(at, found_here, strict=True) if value is None}
        for name in formula.better:
            table[name].append([np.atleast_1d(value[name]) if value else np.array([np.nan]) for value in found_here])
    found = []
    for name, better in formula.better.items():
        samples = max(len(each) for row in table[name] for each in row)
        blocks = [
            np.stack([each if len(each) == samples else np.full(samples, np.nan) for each in row], 1)
            for row in table[name]
        ]
        values = np.concatenate(blocks).astype(np.float64)
        pairs = tuple(range(len(values)))
        found.append(
            Curve(
                metric=entry.name,
                score=name,
                method=view.name,
                at=at,
                values=values,
                over=formula.over,
                better=better,
                pairs=pairs,
                says=formula.says,
                axis=formula.axis,
                summary="mean" if name in formula.by_mean else formula.summary,
                family="network" if formula.of == "network" else formula.family,
                missing=tuple(sorted(missing)),
                partial=formula.partial,
                maps=view.maps,
            )
        )
    return found


def _value(run: Run, entry: MetricEntry, view: View, point: Point) -> dict[str, Any] | None:
    keys = {name: _cell(run, view, probe).key for name, probe in entry.formula.probes(point).items()}
    if not all(each in run.results for each in keys.values()):
        return None
    return dict(entry.formula.value({name: run.results.score(each) for name, each in keys.items()}))


def point_of(run: Run, entry: MetricEntry, view: View, fraction: float, repeat: int = 0) -> Point:
    """A point of a view's curve, with the settings that count for it."""
    own, paper, study = entry.kwargs, entry.paper, run.study
    post = next(each for each in (view.post, own.post, paper.post, study.post) if each is not None)
    imputer = own.imputer or paper.imputer or study.imputer
    return Point(fraction, repeat, imputer, tuple(post), own.unit or paper.unit or study.unit)


def _cell(run: Run, view: View, probe: Any) -> Cell:
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


def _row(run: Run, cell: Cell, seconds: dict[str, float]) -> dict[str, Any]:
    told = conventions(cell.probe)
    fields = {
        name: _plain(value)
        for name, value in settings(cell.probe).items()
        if name not in ("unit", "imputer") or text(value) == told[name]
    }
    return {
        "key": cell.key,
        "method": cell.view.name if cell.view else None,
        "probe": {"probe": type(cell.probe).__name__.lower()} | fields,
        **told,
        "explain": getattr(cell.probe, "explains", run.study.explain),
        "seed": run.study.seed,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    } | (seconds | surroundings(run.device))


def _plain(value: Any) -> Any:
    if isinstance(value, Call):
        return value.model_dump()
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _verify(run: Run, tasks: list[Cell]) -> None:
    """Compare the map files about to be read with their checksums, before hours are spent on them."""
    for name, split in sorted(set().union(*map(_reads, tasks))):
        run.store(name, split).verify()


def _reads(cell: Cell) -> set[tuple[str, str]]:
    """The maps that a probe needs, by name and split."""
    if cell.view is None:
        return set()
    return {(cell.view.maps, split) for split in (("test",) if cell.probe.needs_network else ("train", "test"))}


def _missing(run: Run) -> set[tuple[str, str]]:
    """Maps whose extraction failed: what needs them waits, the rest is measured."""
    gives = {entry.name: entry.gives for entry in run.entries()}
    return {(name, task.split) for task in left(run) for name in gives[task.method]}


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


def _named(cell: Cell) -> str:
    what = type(cell.probe).__name__.lower()
    told = {name: value for name, value in settings(cell.probe).items() if isinstance(value, int | float | str)}
    words = [str(value).replace("_", " ") if name == "order" else f"{name} {value}" for name, value in told.items()]
    return ", ".join([*([cell.view.name] if cell.view else []), what, *words])
