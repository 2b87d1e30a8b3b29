"""Runs the tasks of a stage on the study's executor, and handles failures, progress and threads.

If a worker dies, only its task fails. A task that was running when an earlier command died now runs in a separate
process.
"""

import contextlib
import functools
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from efface.execute import (
    Advance,
    Attempt,
    Executor,
    Failure,
    WorkerDiedError,
    go_on,
    processes,
    serial,
    slots,
)
from efface.execute.pool import in_workers
from efface.execute.process_group import Repeatable
from efface.plug.accepts import accepts
from efface.plug.call import Call
from efface.plug.given import Carried, keep
from efface.plug.source import refuse_changed_code
from efface.stages.run.progress import say
from efface.stages.work.at_work import Noted, Subject, died, ended_in, forget, left
from efface.study.study import Study, dump

Task = TypeVar("Task")


def work_through(
    study: Study,
    work: Callable[[Task], Any],
    tasks: Sequence[Task],
    progress: Advance,
    *,
    cost: Callable[[Task], float],
    subject: Callable[[Task], Subject] | None = None,
    in_process: bool = False,
) -> Iterator[tuple[Task, Any]]:
    """Yield each task once, with the result of the work or a `Failure`, in the order in which they finish.

    Torch has the study's threads while a task runs.

    work: called with one task at a time; it returns something, never None. It and the tasks pickle.
    progress: where the tasks' progress goes, if the executor hands it on; else it gets `cost` when a task is finished.
    cost: of a task, in the units of the stage's display.
    subject: what a task runs. It pickles. A task whose process ends then fails alone. None: no notes are kept.
    in_process: True to run one task after another in this process, whatever the study's executor.
    ValueError: the executor does not keep its contract, see `efface.execute.Executor`, or fails itself.
    """
    executor: Call | Executor = serial if in_process else study.executor
    name = "serial" if in_process else study.executor.call
    suspects = {} if subject is None or not is_own(executor) else left(study.out)
    apart = [task for task in tasks if subject is not None and subject(task).name in suspects]
    together = [task for task in tasks if not any(task is other for other in apart)]
    yield from _through(study, executor, name, work, together, progress, cost, subject)
    if subject is not None and apart:
        for subject_name in dict.fromkeys(subject(task).name for task in apart):
            say(
                f"{subject_name}: the process of an earlier command ended {suspects[subject_name]} while it was running"
            )
        say(f"tasks that now run in a separate process: {len(apart)}")
        own = functools.partial(in_workers, workers=_workers(executor, len(apart)))
        for task, outcome in _through(study, own, "processes", work, apart, progress, cost, subject):
            if ended_in(study.out, subject(task)) is None:
                forget(study.out, subject(task).name)
            yield task, outcome


def _ended(study: Study, waiting: dict[int, Task], subject: Callable[[Task], Subject]) -> dict[int, Failure]:
    """Return the failures of the tasks that left a note, by their place in `waiting`."""
    ends = {number: ended_in(study.out, subject(task)) for number, task in waiting.items()}
    return {number: died(end) for number, end in ends.items() if end is not None}


def is_own(executor: Any) -> bool:
    """Return whether the executor runs tasks on this machine, in this process or in workers of efface."""
    return (executor.resolve() if isinstance(executor, Call) else executor) in (serial, processes)


def _carried(study: Study, work: Any) -> Any:
    """Return the work for another process, with the objects in memory that the study names."""
    objects = keep(dump(study), study.out / "given")
    return work if objects is None else Carried(work, objects)


def _for(executor: Any, study: Study, work: Any) -> Any:
    """Return the work for the executor's processes."""
    return work if (executor.resolve() if isinstance(executor, Call) else executor) is serial else _carried(study, work)


def _repeatable(study: Study, work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the work so that several processes can share a training of it, if the study has such a training."""
    second = study.second_network.fit if study.second_network is not None else None
    trainings = [fit for fit in (study.fit, study.refit, second) if fit is not None]
    return Repeatable(work, _carried(study, work)) if any(fit.devices != 1 for fit in trainings) else work


def _workers(executor: Any, tasks: int) -> int:
    return slots(executor.resolve(), tasks, executor.kwargs) if isinstance(executor, Call) else 1


def _through(
    study: Study,
    executor: Callable[..., Any],
    name: str,
    work: Callable[[Task], Any],
    tasks: Sequence[Task],
    progress: Advance,
    cost: Callable[[Task], float],
    subject: Callable[[Task], Subject] | None,
) -> Iterator[tuple[Task, Any]]:
    """Run the tasks on one executor. A task whose worker ends is a failure, and the executor is started again."""
    ticks = accepts(executor, "progress")
    offered: dict[str, Any] = {"progress": progress} if ticks else {}
    if not isinstance(executor, Call):
        offered["threads"] = study.torch_threads
    waiting = {id(task): task for task in tasks}
    costs = {} if ticks else {id(task): cost(task) for task in tasks}  # before the work changes them
    work = _repeatable(study, work)
    attempt: Any = Attempt(work if subject is None else Noted(work, study.out, subject), study.torch_threads)
    is_foreign = isinstance(executor, Call) and not is_own(executor)
    attempt = _for(executor, study, attempt)
    if is_foreign:
        attempt = WithTask(attempt)
    while waiting:
        try:
            left_over = list(waiting.values())
            with contextlib.closing(_outcomes(executor, name, attempt, left_over, offered)) as outcomes:
                for pair in outcomes:
                    go_on()
                    task, outcome = _checked(name, pair, waiting, paired=is_foreign)
                    refuse_changed_code()
                    if not ticks:
                        progress(costs[id(task)])
                    yield task, outcome
        except WorkerDiedError:
            ended = {} if subject is None else _ended(study, waiting, subject)
            for number, failure in ended.items():
                yield waiting.pop(number), failure
            if len(waiting) == len(left_over):
                raise
        else:
            break
    _all_back(name, waiting, tasks)


def _all_back(name: str, waiting: dict[int, Any], tasks: Sequence[Any]) -> None:
    if waiting:
        raise ValueError(
            f"executor: {name} did not return {len(waiting)} of {len(tasks)} tasks; it must yield each task once, "
            "with what work(task) returned; the results that it returned are kept"
        )


def _outcomes(
    executor: Callable[..., Any], name: str, work: Callable[[Any], Any], tasks: Sequence[Any], offered: dict[str, Any]
) -> Generator[Any]:
    """Yield what the executor yields. Its own errors become a ValueError that names the executor."""
    outcomes: Any = None
    try:
        outcomes = executor(work, tasks, **offered)
        if hasattr(outcomes, "__iter__"):
            yield from outcomes
            return
    except (ValueError, OSError):
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(
            f"executor: {name} fails: {type(error).__name__}: {error} ({last.filename}:{last.lineno})"
        ) from error
    finally:
        if hasattr(outcomes, "close"):
            outcomes.close()
    raise ValueError(
        f"executor: {name} returned {_kind(outcomes)}; expected an iterator of (task, outcome): yield each pair"
    )


@dataclass(frozen=True)
class WithTask:
    """Work whose outcome holds its task as well, for an executor may give the outcome of one task to another."""

    work: Callable[[Any], Any]

    def __call__(self, task: Any) -> "Paired":
        """Return the task with what the work returned."""
        return Paired(task, self.work(task))


@dataclass(frozen=True)
class Paired:
    """An outcome with its task."""

    task: Any
    outcome: Any


def _checked(name: str, pair: Any, waiting: dict[int, Any], *, paired: bool) -> tuple[Any, Any]:
    """Return a task and its outcome, and remove the task from those that wait.

    paired: True if each outcome holds its task, see `WithTask`.
    """
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"executor: {name} yielded {_kind(pair)}; expected a pair (task, outcome)")
    given, outcome = pair
    place = (
        id(given) if id(given) in waiting else next((at for at, task in waiting.items() if _equal(task, given)), None)
    )
    if place is None:
        raise ValueError(
            f"executor: {name} yielded {_kind(given)} in place of a task, or a task for the second time; it must yield "
            "each of its tasks once, as it was given"
        )
    if outcome is None or isinstance(outcome, Future | BaseException):
        raise ValueError(
            f"executor: {name} yielded {_kind(outcome)} as the outcome of a task; expected what work(task) returned"
        )
    if paired:
        outcome = _own_outcome(name, waiting[place], outcome)
    return waiting.pop(place), outcome


def _own_outcome(name: str, task: Any, pair: Any) -> Any:
    """Return what the work returned for this task. ValueError: it is something else, or of another task."""
    if not isinstance(pair, Paired):
        raise ValueError(f"executor: {name} yielded {_kind(pair)} as an outcome; expected what work(task) returned")
    if not _equal(task, pair.task):
        raise ValueError(
            f"executor: {name} yielded the outcome of one task with another task; it must yield each task with what "
            "work(task) returned for it: keep them together, as in futures = {pool.submit(work, task): task}"
        )
    return pair.outcome


def _equal(task: Any, given: Any) -> bool:
    return type(task) is type(given) and bool(task == given)


def _kind(value: Any) -> str:
    value = value.outcome if isinstance(value, Paired) else value
    return "nothing" if value is None else f"a {type(value).__name__}"
