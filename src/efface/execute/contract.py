"""What an executor is, and what it may tell of itself."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

Task = TypeVar("Task")
Given = TypeVar("Given", bound=Callable[..., Any])


class Executor(Protocol):
    """Whoever runs the tasks of a stage.

    It must have:

    * the call `(work, tasks) -> iterator of (task, outcome)`, where outcome is what `work(task)` returned. Each task
      comes back once, in any order. `work` raises nothing but KeyboardInterrupt, and it pickles, as the tasks do.

    It may have:

    * a keyword `progress`, a function of one number. An executor that takes it hands on what `efface.execute.advance`
      reports in the tasks: `with efface.execute.reporting(progress):` does so for tasks of the same process. Without
      this keyword the stage moves its bar when a task is finished.
    * an attribute `slots`, which says how many tasks run at once: a number, or a function of the number of tasks and of
      those settings of the executor that it names. The estimate of `check` reads it; without it, tasks run one by one.
    * settings of its own, as keywords.
    """

    def __call__(self, work: Callable[[Task], Any], tasks: Iterable[Task], /) -> Iterator[tuple[Task, Any]]:
        """The tasks with their outcomes."""
        ...


def runs_at_once(slots: Callable[..., int]) -> Callable[[Given], Given]:
    """For decorating an executor: `slots(tasks, **settings)` answers how many of so many tasks run at once."""

    def marked(executor: Given) -> Given:
        vars(executor)["slots"] = slots
        return executor

    return marked


def slots(executor: Any, tasks: int, settings: Mapping[str, Any]) -> int:
    """How many of so many tasks the executor runs at once, at least 1; 1 where it does not say.

    settings: those that the study gives to the executor.
    ValueError: it says something else than a whole number from 1.
    """
    found = getattr(executor, "slots", 1)
    if callable(found):
        named = inspect.signature(found).parameters
        found = found(tasks, **{name: value for name, value in settings.items() if name in named})
    if not isinstance(found, int) or isinstance(found, bool) or (found < 1 and tasks):
        name = getattr(executor, "__qualname__", type(executor).__qualname__)
        raise ValueError(f"executor: the 'slots' of {name} are {found!r}; expected a whole number from 1")
    return max(found, 1)
