"""How worker processes start."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from multiprocessing import resource_tracker


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
