"""What every process of a run holds: where its progress goes, and whether a Ctrl-C is still to be obeyed."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

Advance = Callable[[float], None]


def _nowhere(_: float) -> None:
    """Progress that nobody asked for."""


_report_to: Advance = _nowhere
"""Where this process reports the progress of the task that it is at."""
_ctrl_c = threading.Event()
"""Set from a Ctrl-C until the run has ended."""


def advance(amount: float) -> None:
    """Report progress from inside a task, in the task's own units."""
    go_on()
    _report_to(amount)


def report_to(report: Advance | None) -> Advance:
    """Send this process's progress there from now on; None sends it nowhere. Returns where it went until now."""
    global _report_to  # noqa: PLW0603  one process runs one task at a time
    before = _report_to
    _report_to = report or _nowhere
    return before


@contextlib.contextmanager
def reporting(progress: Advance | None) -> Iterator[None]:
    """Within: tasks that run in this process report their progress there; None leaves it where it goes."""
    before = report_to(_report_to if progress is None else progress)
    try:
        yield
    finally:
        report_to(before)


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
        _ctrl_c.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _ctrl_c.clear()


def go_on() -> None:
    """Nothing; KeyboardInterrupt where a Ctrl-C came and was ignored."""
    if _ctrl_c.is_set():
        raise KeyboardInterrupt
