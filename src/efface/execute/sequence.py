"""Sequential tasks in this process."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch

from efface.execute.attempt import set_torch_defaults
from efface.execute.progress import Advance, go_on, reporting

Task = TypeVar("Task")


def serial(
    work: Callable[[Task], Any], tasks: Iterable[Task], *, progress: Advance | None = None, threads: int = 1
) -> Iterator[tuple[Task, Any]]:
    """Run one task after another, in this process.

    progress: function that gets the progress of the tasks.
    threads: threads of torch for each task, at least 1; 1 gives the same bits as `processes`.
    """
    before = torch.get_num_threads()
    set_torch_defaults(threads)
    try:
        with reporting(progress):
            for task in tasks:
                go_on()
                yield task, work(task)
    finally:
        torch.set_num_threads(before)
