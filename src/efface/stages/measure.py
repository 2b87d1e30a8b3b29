"""Stage measure: the probes of all metrics, less those already in the results, on any executor."""

import contextlib
import dataclasses
import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efface.execute import Failure
from efface.metrics.probes.description import conventions, settings, text
from efface.plug.call import Call
from efface.stages.extract import left
from efface.stages.run.method_calls import explainer_of
from efface.stages.run.plan import Cell, asks_method, cells, unmet
from efface.stages.run.progress import Clock, bar, duration, say
from efface.stages.run.provenance import surroundings
from efface.stages.run.run import Run
from efface.stages.run.scalars import scalars
from efface.stages.run.work import work_through
from efface.stages.run.worker import here, keep_trace
from efface.stages.samples import make_samples, samples_of
from efface.store.results import Score
from efface.study.study import Study


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
        with contextlib.nullcontext() if frozen else scalars(run, cell.key) as log:
            case = run.case(maps, network=frozen, checkpoint=checkpoint_of(run, cell), cache=_RANKS, log=log)
            case = dataclasses.replace(case, explain=explain, samples=functools.partial(samples_of, run))
            return cell.probe(case), clock.seconds()


_RANKS: dict[Any, Any] = {}


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
    before, total = len(failures), sum(_cost(run, rows, cell) for cell in tasks)
    trainings = sum(not cell.probe.needs_network for cell in tasks)
    say(f"{len(tasks)} probes to run, {trainings} of them trainings")
    with bar(total, "measure", "row") as progress:
        work, cost = Measure(run.study), functools.partial(_cost, run, rows)
        for cell, outcome in work_through(run.study, work, tasks, progress.update, cost=cost):
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


def _cost(run: Run, rows: dict[str, int], cell: Cell) -> float:
    """Forward rows that a probe takes. rows: images of each split."""
    return float(cell.probe.costs(rows, run.refit))


def checkpoint_of(run: Run, cell: Cell) -> Path:
    """Where a retraining keeps its state between two epochs."""
    return run.folder / "partial" / f"{cell.key}.pt"


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


def _named(cell: Cell) -> str:
    what = type(cell.probe).__name__.lower()
    told = {name: value for name, value in settings(cell.probe).items() if isinstance(value, int | float | str)}
    words = [str(value).replace("_", " ") if name == "order" else f"{name} {value}" for name, value in told.items()]
    return ", ".join([*([cell.view.name] if cell.view else []), what, *words])
