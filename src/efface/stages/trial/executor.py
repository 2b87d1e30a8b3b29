"""Trial of an executor of the user's own on two small tasks, before hours are spent."""

from typing import Any

from efface.execute import Failure
from efface.plug import words
from efface.stages.work.through import work_through
from efface.study.study import Study


def try_executor(study: Study) -> None:
    """Run two small tasks on the study's executor. One of efface's own gets none, for it would start workers.

    ValueError: the executor does not keep its contract; the message names it and what it did. Or one of efface's own
    needs a package that is not installed.
    """
    if words.name_of(study.executor.call):
        list(study.executor(_same, []))
        return
    tasks = [("trial", number) for number in range(2)]
    for task, outcome in work_through(study, _same, tasks, _ignore, cost=lambda _: 1.0):
        if isinstance(outcome, Failure):
            raise ValueError(f"executor: {study.executor.call} fails with a small task: {outcome.message}")
        if outcome != task:
            raise ValueError(
                f"executor: {study.executor.call} yielded another outcome than work(task) returned; yield each task "
                "with its own outcome"
            )


def _same(task: Any) -> Any:
    return task


def _ignore(_: float) -> None:
    """Ignore the progress."""
