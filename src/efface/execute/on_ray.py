"""Ray: tasks on the machines of a Ray cluster, each with its share of processors and GPUs. The extra `ray`."""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from efface.execute.elsewhere import Place, check_counts, needed, outcome, packed
from efface.execute.executor import runs_at_once
from efface.execute.pool import WorkerDiedError, processors
from efface.execute.progress import go_on
from efface.execute.ray_cluster import connected
from efface.execute.ray_team import Share, Team

Task = TypeVar("Task")

_MOST = 100_000
_KEPT: list[Team] = []
"""The idle workers of the last call; at most one team."""


def _slots(tasks: int, workers: int | None = None, address: str | None = None) -> int:
    """Return the workers that are asked for; of a local cluster, one for each processor of this machine."""
    return min(tasks, workers or (processors() if address is None else tasks))


@runs_at_once(_slots)
def ray(
    work: Callable[[Task], Any],
    tasks: Iterable[Task],
    *,
    workers: int | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    address: str | None = None,
    threads: int = 1,
    retries: int = 2,
) -> Iterator[tuple[Task, Any]]:
    """Run tasks on a Ray cluster. Without an address, a local cluster starts, and ends with this process.

    A worker is one process that does one task at a time, on the processors and the GPU that Ray gave it. Workers stay
    for the next call. If a node joins the cluster, workers start there, too.

    workers: most workers. None: as many as the cluster has room for.
    cpus: processors of a worker, above 0. None: `threads`.
    gpus: GPUs of a worker, from 0. 0.25 puts four workers on one GPU. None: 0.25 if the cluster has a GPU, else 0.
    address: address of the cluster's head node, such as `10.0.0.1:6379`; "auto" finds that of this machine.
    threads: threads of torch in each worker, at least 1.
    retries: how often a task is begun again whose worker or node was lost.

    ValueError: Ray is not installed, no cluster answers, it has no room for a worker, no worker starts, or the work
    does not pickle. WorkerDiedError: a task's worker died each time; all other tasks are done. An exception of the work
    is raised again here.
    """
    tasks = list(tasks)
    needed("ray", "ray")
    if not tasks:
        return
    content, waiting = packed(work), deque(enumerate(map(packed, tasks)))
    package = connected(address)
    team = _team(package, Share(cpus or float(threads), gpus, threads, Place.here()))
    shared, deaths, lost = package.put(content), Counter[int](), list[int]()
    whole = False
    try:
        while waiting or team.busy:
            go_on()
            team.grow(min(workers or _MOST, len(waiting) + len(team.busy)))
            came = list(team.done())
            for number, task in [(number, task) for number, task, found in came if found is None]:
                deaths[number] += 1
                if deaths[number] > retries:
                    lost.append(number)
                else:
                    waiting.appendleft((number, task))
            while waiting and team.idle and len(team.busy) < (workers or _MOST):
                team.give(shared, *waiting.popleft())
            for number, found in [(number, found) for number, _, found in came if found is not None]:
                yield tasks[number], outcome(found)
        whole = True
    finally:
        if not whole:  # nobody reads the results of the others, and a task may take hours
            _KEPT.clear()
            team.end()
    if lost:
        raise WorkerDiedError(
            f"executor: {len(lost)} of {len(tasks)} tasks lost their worker {retries + 1} times (killed, out of "
            "memory, or its node was lost); finished work is kept: run the same command again, with fewer workers on a "
            "node (executor.kwargs.cpus=2) or a smaller 'max_batch' if memory was short"
        )


def check_ray(
    *,
    workers: int | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    threads: int = 1,
    retries: int = 2,
) -> None:
    """Raise ValueError for numbers that no worker can have."""
    check_counts(_MOST, workers=workers, threads=threads, retries=retries or None)
    if cpus is not None and not 0 < cpus < math.inf:
        raise ValueError(f"kwargs.cpus: is {cpus!r}; expected a number above 0")
    if gpus is not None and not (0 <= gpus <= 1 or (1 < gpus < math.inf and gpus == int(gpus))):
        raise ValueError(f"kwargs.gpus: is {gpus!r}; expected a number from 0 to 1, or a whole number above")


def _team(package: Any, share: Share) -> Team:
    """Return the workers of an earlier call if they fit; else a new team."""
    if _KEPT and _KEPT[0].fits(package, share):
        _KEPT[0].look_after()
        return _KEPT[0]
    if _KEPT and package.is_initialized():
        _KEPT.pop().end()
    _KEPT[:] = [Team(package, share)]
    return _KEPT[0]
