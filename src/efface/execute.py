"""Executors: (work, tasks) -> iterator of (task, outcome). An outcome is what the work returned, or a `Failure`.

`work` is called with one task at a time; it and the tasks must pickle for any executor but `serial`. A task that
fails does not stop the others.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple, TypeVar

import torch

Task = TypeVar("Task")
Advance = Callable[[float], None]


def _nowhere(_: float) -> None:
    """Progress that nobody asked for."""


_advance: Advance = _nowhere  # where this process reports progress to


_ON_ONE_GPU = 4  # each has its own context, data and ranks on it


class Failure(NamedTuple):
    """What a task raised: one sentence, and the trace for whoever wrote the code that raised it."""

    message: str
    trace: str


def advance(amount: float) -> None:
    """Report progress from inside a task, in the task's own units."""
    _go_on()
    _advance(amount)


_stop = threading.Event()


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within: a Ctrl-C is not lost.

    Where it meets a callback of Python's own, such as a weak reference's, KeyboardInterrupt is ignored there; then the
    next `advance`, or task, raises it.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def stop(*_: Any) -> None:
        _stop.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _stop.clear()


def _go_on() -> None:
    if _stop.is_set():
        raise KeyboardInterrupt


def serial(
    work: Callable[[Task], Any], tasks: Iterable[Task], *, progress: Advance | None = None, threads: int = 1
) -> Iterator[tuple[Task, Any]]:
    """One task after another, here. threads: of torch, for each task; 1 gives the same bits as `processes`."""
    before = torch.get_num_threads()
    _set_up(progress or _advance, threads)
    try:
        for task in tasks:
            _go_on()
            yield task, _outcome(work, task)
    finally:
        _set_up(_nowhere, before)


def processes(
    work: Callable[[Task], Any],
    tasks: Iterable[Task],
    *,
    workers: int | None = None,
    progress: Advance | None = None,
    threads: int = 1,
) -> Iterator[tuple[Task, Any]]:
    """Tasks side by side in spawned processes.

    workers: how many; by default one for each processor that this process may use, at most 4 where there is a GPU,
    which they share. N processes of one thread beat
    one process of N threads. threads: of torch, in each of them.
    """
    tasks = list(tasks)
    cores = len(os.sched_getaffinity(0))
    most = workers or (min(cores, _ON_ONE_GPU) if torch.cuda.is_available() else cores)
    workers = min(most, len(tasks))
    if workers <= 1:
        yield from serial(work, tasks, progress=progress, threads=threads)
        return
    _check_pickles(work, tasks)
    pool = _pool(workers, most, threads)
    waiting: dict[Future[Any], Task] = {}
    whole = False
    try:
        pool.progress = progress or _nowhere
        left = iter(tasks)
        for task in left:  # one ahead of each worker: order is kept, and a late stop loses little
            waiting[pool.futures.submit(_outcome, work, task)] = task
            if len(waiting) > workers:
                yield from _collect(waiting)
        while waiting:
            yield from _collect(waiting)
        pool.catch_up()
        whole = True
    finally:
        pool.progress = _nowhere
        if not whole:  # stopped or broken: none of its workers goes on with what nobody waits for
            close_all()


class _Pool:
    """Workers that stay for the next call: each takes seconds to start, to import torch and to read the data."""

    def __init__(self, workers: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.workers, self.threads = workers, threads
        self.progress: Advance = _nowhere
        self._ticks, self._caught_up = context.SimpleQueue(), threading.Event()
        self._draining = threading.Thread(target=self._drain, daemon=True)
        self._draining.start()
        self.futures = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(self._ticks, threads))

    def catch_up(self) -> None:
        """Wait until all progress reported so far has been passed on."""
        self._caught_up.clear()
        self._ticks.put("mark")
        self._caught_up.wait(5)

    def close(self) -> None:
        self.futures.shutdown(wait=True, cancel_futures=True)
        self._ticks.put(None)
        self._draining.join(5)

    def _drain(self) -> None:
        while (amount := self._ticks.get()) is not None:
            if amount == "mark":
                self._caught_up.set()
            else:
                self.progress(amount)


_POOLS: list[_Pool] = []  # one at the most


def _pool(needed: int, most: int, threads: int) -> _Pool:
    """The workers of an earlier call, if they are enough and not too many; else new ones."""
    if not (_POOLS and needed <= _POOLS[0].workers <= most and _POOLS[0].threads == threads):
        close_all()
        _POOLS.append(_Pool(needed, threads))
    return _POOLS[0]


def close_all() -> None:
    """Let the workers go that wait for more."""
    while _POOLS:
        _POOLS.pop().close()


def _check_pickles(work: Callable[[Task], Any], tasks: list[Task]) -> None:
    """ValueError for what no other process can be given; in the pool it would wait for ever."""
    try:
        pickle.dumps((work, tasks))
    except Exception as error:  # pickle names what it cannot take in many ways
        raise ValueError(
            f"executor: this work cannot be handed to other processes ({type(error).__name__}: {error}); define what "
            "it names at the top of a module, or take executor: efface.execute.serial"
        ) from error


def _collect(waiting: dict["Future[Any]", Task]) -> Iterator[tuple[Task, Any]]:
    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
        _go_on()
        task = waiting.pop(future)
        try:
            yield task, future.result()
        except BrokenProcessPool as error:
            raise ValueError(
                "a worker process died (killed, or out of memory); what is finished is kept: run the same command "
                "again, with fewer workers (executor.kwargs.workers=1) or a smaller 'rows' if memory was short"
            ) from error


def _outcome(work: Callable[[Task], Any], task: Task) -> Any:
    try:
        return work(task)
    except Exception as error:  # noqa: BLE001  the caller decides what a failed task means
        plain = isinstance(error, ValueError | FileNotFoundError)
        message = str(error) if plain else f"{type(error).__name__}: {error}"
        return Failure(message, traceback.format_exc())


def _start_worker(ticks: Any, threads: int) -> None:
    _set_up(ticks.put, threads)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def settle(threads: int) -> None:
    """Torch as every process of a run has it: so many threads, and on a GPU the same bits each time, in full fp32."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    # Freed at once, untouched: then glibc keeps what is freed, up to twice this, instead of giving it back to the
    # system, and a pass need not get its pages anew for each layer (ResNet20, 256 images: 226 ms instead of 331).
    torch.empty(31 << 20, dtype=torch.uint8)


def _set_up(report: Advance, threads: int) -> None:
    global _advance  # noqa: PLW0603  one process runs one task at a time
    _advance = report
    settle(threads)


def _die_with_parent() -> None:
    """A parent that was killed leaves no worker behind to write into its files."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
