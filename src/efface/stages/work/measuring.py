"""Measuring: the tasks of a plan that have no result yet, on any executor."""

import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from efface.base.shown import shown
from efface.execute import Failure, task_status
from efface.metrics.probes import Case
from efface.metrics.probes.block import whole_of
from efface.metrics.probes.description import describe, fields_of, text
from efface.metrics.probes.probe import Explains
from efface.models.memory import Onwards, with_smaller_batches
from efface.plug.call import Call
from efface.stages.run.case import case_of
from efface.stages.run.curves import PlannedRun
from efface.stages.run.display import display
from efface.stages.run.map_files import extraction_key, map_store, missing_maps
from efface.stages.run.method_calls import explainer_of
from efface.stages.run.needs import unmet
from efface.stages.run.plan import ProbeTask
from efface.stages.run.progress import Clock, duration, say, say_out_of_memory
from efface.stages.run.provenance import surroundings
from efface.stages.run.rounds import pairs_said, spent_share, wanted
from efface.stages.run.run import Run
from efface.stages.run.weights_kept import weights_kept
from efface.stages.run.worker import current_run, keep_failure
from efface.stages.work.at_work import Subject
from efface.stages.work.first_values import FirstValues
from efface.stages.work.sampling import make_samples, samples_of
from efface.stages.work.scalars import scalars
from efface.stages.work.through import work_through
from efface.store.results import Score
from efface.store.sealed import is_whole
from efface.study.study import Study


@dataclass(frozen=True)
class Measure:
    """The work of one task: call a probe with its case."""

    study: Study

    def __call__(self, task: ProbeTask) -> tuple[Score, dict[str, float]]:
        """Return the score and the seconds that it took."""
        run, clock = current_run(self.study), Clock()
        cost = _cost(run, {name: len(split) for name, split in run.data.items()}, task)
        with task_status.working_on(run.folder, _briefly(task), cost, "passes"):
            return self._run(run, task), clock.seconds()

    def _run(self, run: Run, task: ProbeTask) -> Score:
        maps = {split: map_store(run, name, split) for name, split in task.reads}
        frozen = task.probe.needs.network
        if not frozen:
            is_whole(checkpoint_of(run, task), checkpoint_of(run, task).name, "the training starts at its first epoch")
        with contextlib.nullcontext() if frozen else scalars(run, task.key) as log:
            case = case_of(run, maps, network=frozen, checkpoint=checkpoint_of(run, task), cache=RANKS, log=log)
            case = dataclasses.replace(case, samples=functools.partial(samples_of, run))
            if frozen:
                name = (
                    f"attribution_methods.{task.view.name}" if task.view and task.probe.needs.method else _named(task)
                )
                with weights_kept(run.network, name, run.first.give_up):
                    score = _scored(run, task, case)
            else:
                score = _scored(run, task, case)
            _refuse_no_score(task, score)
            return score


def _scored(run: Run, task: ProbeTask, case: Case) -> Score:
    """Return the score of a probe. When memory runs out, the probe starts again with half as many images in a pass."""
    kind, advance = type(whole_of(task.probe)), Onwards(case.advance)

    def scored(max_batch: int) -> Score:
        advance.restart()
        again = dataclasses.replace(case, max_batch=max_batch, advance=advance)
        if task.view and task.probe.needs.method:
            again = dataclasses.replace(again, explain=explainer_of(run, task.view, max_batch=max_batch))
        return task.probe(again)

    def lower(max_batch: int) -> None:
        BATCHES[kind] = max_batch
        say_out_of_memory(_named(task), max_batch)

    return with_smaller_batches(scored, min(case.max_batch, BATCHES.get(kind, case.max_batch)), halved=lower)


def _refuse_no_score(task: ProbeTask, score: object) -> None:
    """Raise ValueError if what a probe returned is no `Score`, or holds other things than arrays by name."""
    who = f"metrics.{task.metric}: the probe {type(whole_of(task.probe)).__name__} returned"
    if not isinstance(score, Score):
        raise ValueError(f"{who} a {type(score).__name__}; expected an efface.metrics.probes.Score")
    if not isinstance(score.values, Mapping) or not score.values:
        raise ValueError(f"{who} a Score of {shown(score.values)}; expected arrays by name")
    for name, values in score.values.items():
        if not isinstance(values, np.ndarray) or values.ndim == 0 or values.dtype.kind not in "fiub":
            raise ValueError(
                f"{who} a Score with a {type(values).__name__} under '{name}'; expected a NumPy array of numbers, one "
                "for each image: use numpy(force=True) of a tensor, or np.array([number])"
            )


RANKS: dict[Any, Any] = {}
"""Ranks of the last map that this process ranked."""
BATCHES: dict[type, int] = {}
"""Images in a pass of the kinds of probes for which memory ran out in this process: their next ones start with it."""


def measure_missing(planned: PlannedRun) -> list[str]:
    """Run every task that has no result yet and whose maps exist. Return a sentence for each failure.

    A metric whose `value` fails on its first scores is said at once. The page then refuses it.

    Maps whose extraction failed are missing: the tasks that read them wait, the others run.
    ValueError: a metric cannot be planned, or needs something that the data do not have.
    """
    run, plan = planned.run, planned.plan
    if problems := [*plan.problems, *unmet(run, plan)]:
        raise ValueError("\nefface: ".join(problems))
    missing = missing_maps(run)
    _fail_without_maps(run, plan.open(run.results), missing)
    if run.study.decide is None:
        return _measured(planned, [task for task in plan.open(run.results) if not missing & task.reads], {})
    failures, failed = list[str](), dict[str, str]()
    stuck = {task.key for task in plan.tasks if missing & task.reads}
    for number in itertools.count(1):
        now = dataclasses.replace(planned)  # its curves have the results of the rounds before
        tasks = wanted(now, stuck | failed.keys())
        if not tasks:
            break
        say(f"round {number}: {pairs_said(now, stuck | failed.keys())}")
        failures += _measured(planned, tasks, failed)
    share = f"{100 * spent_share(now):.0f} % of the planned forward passes"
    say(f"{pairs_said(now, stuck | failed.keys())}, after {share}")
    return failures


def _fail_without_maps(run: Run, tasks: Sequence[ProbeTask], missing: Collection[tuple[str, str]]) -> None:
    """Keep for each task without its maps why their extraction failed."""
    reasons = {
        (name, split): run.results.failed.get(extraction_key(run, run.entry_of_maps(name), split))
        for name, split in missing
    }
    by_reason: dict[str, list[str]] = {}
    for task in tasks:
        for reason in filter(None, map(reasons.get, sorted(task.reads & reasons.keys()))):
            by_reason.setdefault(reason, []).append(task.key)
    for reason, keys in by_reason.items():
        run.results.fail(keys, reason)


def _measured(planned: PlannedRun, tasks: list[ProbeTask], failed: dict[str, str]) -> list[str]:
    """Run these tasks. Return a sentence for each failure, and add it to `failed` by the key of its task."""
    run, plan = planned.run, planned.plan
    if not tasks:
        return []
    started, counts = time.monotonic(), {name: len(split) for name, split in run.data.items()}
    failures = make_samples(run, [samples for task in tasks if (samples := task.probe.needs.samples) is not None])
    before, total = len(failures), sum(_cost(run, counts, task) for task in tasks)
    trainings = sum(not task.probe.needs.network for task in tasks)
    say(f"{len(tasks)} probes to run, {trainings} of them trainings")
    first = FirstValues(plan)
    with display(total, "measure", "passes", tasks=len(tasks), folders=[run.folder]) as live:
        work, cost = Measure(run.study), functools.partial(_cost, run, counts)
        for task, outcome in work_through(run.study, work, tasks, live.update, cost=cost, subject=_subject):
            live.finished(cost(task), failed=isinstance(outcome, Failure))
            if isinstance(outcome, Failure):
                failed[task.key] = f"{_named(task)}: {outcome.reason}"
                failures.append(failed[task.key])
                keep_failure(run, _named(task), outcome, [task.key])
                continue
            score, seconds = outcome
            run.results.append(result_row(run, task, seconds), score)
            for fault in first.faults(task.key, run.results):
                say(f"{fault}; the other tasks go on")
            checkpoint_of(run, task).unlink(missing_ok=True)
    took = duration(time.monotonic() - started)
    say(f"{len(tasks) - len(failures) + before} of {len(tasks)} probes in {took}: {run.results.path}")
    return failures


def _subject(task: ProbeTask) -> Subject:
    asks = task.view is not None and task.probe.needs.method
    return Subject(f"attribution_methods.{task.view.maps}" if task.view and asks else _named(task), task.key)


def _cost(run: Run, counts: dict[str, int], task: ProbeTask) -> float:
    """Return the forward passes that a probe takes. counts: number of images in each split."""
    return float(task.probe.cost(counts, run.refit))


def checkpoint_of(run: Run, task: ProbeTask) -> Path:
    """Return the file in which a retraining keeps its state between epochs."""
    return run.folder / "partial" / f"{task.key}.pt"


def result_row(run: Run, task: ProbeTask, seconds: dict[str, float]) -> dict[str, Any]:
    """Return the line of a result, without its score."""
    description = dataclasses.asdict(describe(task.probe))
    fields = {
        name: _plain(value)
        for name, value in fields_of(task.probe).items()
        if name not in ("unit", "imputer") or text(value) == description[name]
    }
    return {
        "key": task.key,
        "method": task.view.name if task.view else None,
        "probe": {"probe": type(whole_of(task.probe)).__name__.lower()} | fields,
        **description,
        "explain": whole.explains if isinstance(whole := whole_of(task.probe), Explains) else run.study.explain,
        "seed": run.study.seed,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    } | (seconds | surroundings(run.device) | _devices_of(run, task))


def _devices_of(run: Run, task: ProbeTask) -> dict[str, Any]:
    """Return what the line of a result says of the devices that shared its training."""
    trains = task.probe.needs.training or not task.probe.needs.network
    return {"devices": run.refit.devices} if trains and run.refit is not None and run.refit.devices != 1 else {}


def _plain(value: Any) -> Any:
    if isinstance(value, Call):
        return value.model_dump()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str | dict | None) else str(value)


def _briefly(task: ProbeTask) -> str:
    """Return the method, the metric and the numbers of a probe."""
    numbers = {name: value for name, value in fields_of(task.probe).items() if type(value) in (int, float)}
    view = [task.view.name] if task.view else []
    return ", ".join([*view, task.metric or "check of its maps", *map("{0[0]} {0[1]:g}".format, numbers.items())])


def _named(task: ProbeTask) -> str:
    fields = {name: value for name, value in fields_of(task.probe).items() if not isinstance(value, bool)}
    plain = {name: value for name, value in fields.items() if isinstance(value, int | float | str)}
    words = [str(value).replace("_", " ") if name == "order" else f"{name} {value}" for name, value in plain.items()]
    return ", ".join([*([task.view.name] if task.view else []), task.metric or "check of its maps", *words])
