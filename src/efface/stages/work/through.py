"""Runs the tasks of a stage on the study's executor. Failures, progress and threads are handled here."""

import contextlib
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from efface.execute import Advance, Attempt, Executor, go_on, serial
from efface.plug.accepts import accepts
from efface.plug.call import Call
from efface.study.study import Study

Task = TypeVar("Task")


def work_through(
    study: Study,
    work: Callable[[Task], Any],
    tasks: Sequence[Task],
    progress: Advance,
    *,
    cost: Callable[[Task], float],
    in_process: bool = False,
) -> Iterator[tuple[Task, Any]]:
    """Yield each task once, with the result of the work or a `Failure`, in the order in which they finish.

    Torch has the study's threads while a task runs.

    work: called with one task at a time; it returns something, never None. It and the tasks pickle.
    progress: where the tasks' progress goes, if the executor hands it on; else it gets `cost` when a task is finished.
    cost: a task's share of the bar, in the bar's own units.
    in_process: True to run one task after another in this process, whatever the study's executor.
    ValueError: the executor does not keep its contract, see `efface.execute.Executor`, or fails itself.
    """
    executor: Call | Executor = serial if in_process else study.executor
    name = "serial" if in_process else study.executor.call
    ticks = accepts(executor, "progress")
    offered: dict[str, Any] = {"progress": progress} if ticks else {}
    if in_process:
        offered["threads"] = study.torch_threads
    waiting = {id(task): task for task in tasks}
    costs = {} if ticks else {id(task): cost(task) for task in tasks}  # before the work changes them
    with contextlib.closing(_outcomes(executor, name, Attempt(work, study.torch_threads), tasks, offered)) as found:
        for each in found:
            go_on()
            task, outcome = _checked(name, each, waiting)
            if not ticks:
                progress(costs[id(task)])
            yield task, outcome
    if waiting:
        raise ValueError(
            f"executor: {name} did not give back {len(waiting)} of {len(tasks)} tasks; it must yield each task once, "
            "with what work(task) returned; what came back is kept"
        )


def _outcomes(
    executor: Callable[..., Any], name: str, work: Attempt, tasks: Sequence[Any], offered: dict[str, Any]
) -> Generator[Any]:
    """Yield what the executor yields. Its own errors become a ValueError that names the executor."""
    found: Any = None
    try:
        found = executor(work, tasks, **offered)
        if hasattr(found, "__iter__"):
            yield from found
            return
    except (ValueError, OSError):
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(
            f"executor: {name} fails: {type(error).__name__}: {error} ({last.filename}:{last.lineno})"
        ) from error
    finally:
        if hasattr(found, "close"):
            found.close()
    raise ValueError(
        f"executor: {name} returned {_kind(found)}; expected an iterator of (task, outcome): yield each pair"
    )


def _checked(name: str, each: Any, waiting: dict[int, Any]) -> tuple[Any, Any]:
    """Return a task and its outcome, and remove the task from those that wait."""
    if not isinstance(each, tuple | list) or len(each) != 2:
        raise ValueError(f"executor: {name} yielded {_kind(each)}; expected a pair (task, outcome)")
    given, outcome = each
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
    return waiting.pop(place), outcome


def _equal(task: Any, given: Any) -> bool:
    return type(task) is type(given) and bool(task == given)


def _kind(found: Any) -> str:
    return "nothing" if found is None else f"a {type(found).__name__}"
