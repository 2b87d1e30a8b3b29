"""Parallel tasks in worker processes that are reused by the next call."""

import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from efface.execute.elsewhere import cannot_be_sent, check_counts
from efface.execute.executor import runs_at_once
from efface.execute.progress import Advance, go_on
from efface.execute.sequence import serial
from efface.execute.starting import blocked, end_processes, workers_context
from efface.execute.worker import busy_with, start_worker

Task = TypeVar("Task")

_ON_ONE_GPU = 4  # each worker has its own context, data and ranks on the GPU


def _slots(tasks: int, workers: int | None = None) -> int:
    return min(_most(workers), tasks)


def _most(workers: int | None) -> int:
    """Return the largest number of workers, for any number of tasks."""
    return workers or (min(processors(), _ON_ONE_GPU) if torch.cuda.is_available() else processors())


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS


@runs_at_once(_slots)
def processes(
    work: Callable[[Task], Any],
    tasks: Iterable[Task],
    *,
    workers: int | None = None,
    progress: Advance | None = None,
    threads: int = 1,
) -> Iterator[tuple[Task, Any]]:
    """Run tasks in parallel, in processes of their own.

    N processes of one thread are faster than one process of N threads.

    workers: number of processes, at least 1. By default there is one for each processor that this process may use. With
        a GPU there are at most 4 by default, which share the GPU.
    progress: function that gets the progress of the tasks.
    threads: threads of torch in each process, at least 1.

    ValueError: the work does not pickle. WorkerDiedError: a worker died. An exception of the work is raised again here.
    """
    tasks = list(tasks)
    most = _most(workers)
    workers = min(most, len(tasks))
    if workers <= 1:
        yield from serial(work, tasks, progress=progress, threads=threads)
        return
    yield from in_workers(work, tasks, workers=most, progress=progress, threads=threads)


def in_workers(
    work: Callable[[Task], Any], tasks: list[Task], *, workers: int, progress: Advance | None = None, threads: int = 1
) -> Iterator[tuple[Task, Any]]:
    """Run tasks in that many processes of their own, also if it is one. `processes` says the rest."""
    _check_pickles(work, tasks)
    pool = _pool(min(workers, len(tasks)), workers, threads)
    waiting: dict[Future[Any], Task] = {}
    whole = False
    try:
        pool.progress = progress
        for task in tasks:  # one task waits beside those at work: the order is kept, and a late stop loses little
            with blocked("SIGINT"):  # a new worker cannot be stopped in an orderly way before `start_worker` has run
                future = pool.futures.submit(busy_with, work, task)
            waiting[future] = task
            if len(waiting) > pool.workers:
                yield from _collect(waiting)
        while waiting:
            yield from _collect(waiting)
        pool.catch_up()
        whole = True
    except BrokenProcessPool as error:  # a result, or the next task, tells it
        raise WorkerDiedError(_DIED) from error
    finally:
        pool.progress = None
        if not whole:  # on stop or crash, end the workers; nobody reads their results, and a task may take hours
            end_processes(multiprocessing.active_children())
            close_all()


class WorkerDiedError(ValueError):
    """A worker process ended while it was at a task."""


_MARK = ""
"""What is asked for after all that was reported before."""


class _Pool:
    """Workers that are reused by the next call: each has to read the data."""

    def __init__(self, workers: int, threads: int) -> None:
        context = workers_context()
        self.workers, self.threads = workers, threads
        self.progress: Advance | None = None
        self._ticks, self._caught_up = context.SimpleQueue(), threading.Event()
        self._draining = threading.Thread(target=self._drain, daemon=True)
        self._draining.start()
        self.futures = ProcessPoolExecutor(
            workers, context, initializer=start_worker, initargs=(self._ticks.put, threads, self._ticks.put)
        )

    def catch_up(self) -> None:
        """Wait until all progress reported so far has been passed on."""
        self._caught_up.clear()
        self._ticks.put(_MARK)
        self._caught_up.wait(5)

    def close(self) -> None:
        self.futures.shutdown(wait=True, cancel_futures=True)
        self._ticks.put(None)
        self._draining.join(5)

    def _drain(self) -> None:
        while (amount := self._ticks.get()) is not None:
            if amount == _MARK:
                self._caught_up.set()
            elif isinstance(amount, str):
                sys.stdout.write(amount)
                sys.stdout.flush()
            elif (progress := self.progress) is not None:
                progress(amount)


_KEPT: list[_Pool] = []
"""The idle workers of the last call; at most one pool."""


def _pool(needed: int, most: int, threads: int) -> _Pool:
    """Return the workers of an earlier call if their number fits; else start new ones."""
    if not (_KEPT and needed <= _KEPT[0].workers <= most and _KEPT[0].threads == threads):
        close_all()
        _KEPT.append(_Pool(needed, threads))
    return _KEPT[0]


def close_all() -> None:
    """Shut down the idle workers."""
    while _KEPT:
        _KEPT.pop().close()


_MOST_WORKERS = 1_024


def check_processes(*, workers: int | None = None, threads: int = 1) -> None:
    """Raise ValueError for numbers of workers or threads that are no integers from 1 to 1024."""
    check_counts(_MOST_WORKERS, workers=workers, threads=threads)


def _check_pickles(work: Callable[[Task], Any], tasks: list[Task]) -> None:
    """Raise ValueError for work that cannot be sent to another process. The pool would wait for it for ever."""
    try:
        pickle.dumps((work, tasks))
    except Exception as error:  # pickle raises many types of exceptions
        raise cannot_be_sent(error) from error


def _collect(waiting: dict["Future[Any]", Task]) -> Iterator[tuple[Task, Any]]:
    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
        go_on()
        task = waiting.pop(future)
        yield task, future.result()


_DIED = (
    "a worker process died (killed, or out of memory); finished work is kept: run the same command again, with fewer "
    "workers (executor.kwargs.workers=1) or a smaller 'max_batch' if memory was short"
)
