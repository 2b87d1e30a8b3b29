"""How worker processes start and end."""

import contextlib
import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing import context, resource_tracker
from typing import Any

_PATIENCE = 5  # seconds that workers have to end


def workers_context() -> context.SpawnContext:
    """Return the context of multiprocessing in which workers start. A Ctrl-C is heard while their server starts.

    They are in all as if each were a new interpreter (`spawn`), and they are new interpreters where a fork is not
    safe: on a system other than Linux, and if an import has started a thread or touched a GPU.
    """
    start_tracker()
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    from efface.execute.forked import Workers  # its parts are of Linux

    return Workers()


def start_tracker() -> None:
    """Start the helper process of multiprocessing so that no SIGHUP ends it; it ignores SIGINT and SIGTERM by itself.

    It ends with this process. Ended before by the hang-up of a terminal, it would leave traces of errors. If this
    process ends at once, the helper removes its semaphores, and need not warn of them.
    """
    if hasattr(signal, "SIGHUP"):  # another system has no helper process
        quiet = "ignore:resource_tracker:UserWarning"
        sys.warnoptions.append(quiet)  # the helper's own -W
        try:
            with blocked("SIGHUP"):
                resource_tracker.ensure_running()
        finally:
            sys.warnoptions.remove(quiet)


@contextlib.contextmanager
def blocked(*names: str) -> Iterator[None]:
    """Block signals inside the block; they arrive afterwards. Processes that are started inside never see them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {getattr(signal, name) for name in names})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_processes(workers: list[Any]) -> None:
    """Ask workers to end, again each second, for one may wait for a lock that another took with it; then kill them."""
    for _ in range(_PATIENCE):
        for worker in workers:
            worker.terminate()
        until = time.monotonic() + 1.0
        for worker in workers:
            worker.join(max(0.0, until - time.monotonic()))
        workers = [worker for worker in workers if worker.is_alive()]
        if not workers:
            return
    for worker in workers:
        worker.kill()
        worker.join(1.0)
