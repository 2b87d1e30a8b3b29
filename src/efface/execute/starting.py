"""How worker processes start."""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from typing import Any

import torch

_IMPORTED = ("torch._dynamo", "efface.stages.work.extraction", "efface.stages.work.measuring")
"""What the server of workers imports before it forks: torch's optimizers import torch._dynamo, which takes seconds."""


def workers_context() -> Any:
    """Return how workers start. On Linux without a GPU, a server that has imported torch forks them in 0.1 s.

    Elsewhere each worker is a new interpreter, which takes seconds: a process that forks must not have touched a GPU,
    and a fork is not safe on macOS.
    """
    if sys.platform != "linux" or torch.cuda.is_available():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    with blocked("SIGINT", "SIGHUP", "SIGTERM"):  # it ends with this process, and workers unblock what they handle
        forkserver.ensure_running()
    try:  # a stop is heard while the server imports, before any worker is asked for
        ready = context.Process(target=_nothing, daemon=True)
        ready.start()
        ready.join()
    except BaseException:
        server = getattr(forkserver._forkserver, "_forkserver_pid", None)  # noqa: SLF001  it would import on for seconds
        if server is not None:
            os.kill(server, signal.SIGKILL)
        raise
    return context


def _nothing() -> None:
    """End at once."""


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
