"""The contract of an executor and the facts that it may state about itself."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

Task = TypeVar("Task")
Given = TypeVar("Given", bound=Callable[..., Any])


class Executor(Protocol):
    """A callable that runs the tasks of a stage.

    It must have:

    * the call `(work, tasks) -> iterator of (task, outcome)`. The outcome is the result of `work(task)`. Each task is
      yielded once, in any order. `work` raises only KeyboardInterrupt. `work` and the tasks pickle.

    It may have:

    * a keyword `progress`, a function of one number. The executor calls it with the amounts that
      `efface.execute.advance` reports in the tasks. For tasks in the same process,
      `with efface.execute.reporting(progress):` does this. Without the keyword, the display of the stage knows the
      progress of tasks that see the folder of the run, and of others when they are finished.
    * an attribute `slots`, the number of tasks that run at once. It is a number, or a function of the number of tasks
      and of the executor's settings that it has as parameters. The estimate of `check` uses it. Without it, the
      estimate assumes that tasks run one by one.
    * settings of its own, as keywords.
    """

    def __call__(self, work: Callable[[Task], Any], tasks: Iterable[Task], /) -> Iterator[tuple[Task, Any]]:
        """Yield the tasks with their outcomes."""
        ...


def runs_at_once(slots: Callable[..., int]) -> Callable[[Given], Given]:
    """Return a decorator that sets the `slots` of an executor.

    slots: function `(tasks, **settings)` that returns how many of that many tasks run at once.
    """

    def marked(executor: Given) -> Given:
        vars(executor)["slots"] = slots
        return executor

    return marked


def slots(executor: Any, tasks: int, settings: Mapping[str, Any]) -> int:
    """Return how many tasks the executor runs at once, at least 1; 1 for an executor without `slots`.

    tasks: number of tasks.
    settings: settings of the executor in the study.

    ValueError: `slots` is misspelt, or it is not a whole number of at least 1.
    """
    named = getattr(executor, "__qualname__", type(executor).__qualname__)
    own = getattr(executor, "__dict__", {})
    if "slots" not in own and (close := difflib.get_close_matches("slots", own, n=1, cutoff=0.8)):
        raise ValueError(f"executor: {named} has '{close[0]}', which nothing reads; did you mean slots?")
    count = getattr(executor, "slots", 1)
    if callable(count):
        known = inspect.signature(count).parameters
        count = count(tasks, **{name: value for name, value in settings.items() if name in known})
    if not isinstance(count, int) or isinstance(count, bool) or (count < 1 and tasks):
        raise ValueError(f"executor: the 'slots' of {named} are {count!r}; expected a whole number from 1")
    return max(count, 1)
