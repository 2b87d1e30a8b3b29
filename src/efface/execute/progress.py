"""State of each process of a run: the receiver of its progress, and a Ctrl-C that has not yet stopped it."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from efface.execute.own_signals import STOPS, refuse_own, watched
from efface.execute.task_status import note

Advance = Callable[[float], None]


def _nowhere(_: float) -> None:
    """Ignore the progress."""


_report_to: Advance = _nowhere
"""Function that gets the progress of this process's present task."""
_ctrl_c = threading.Event()
"""Set by a Ctrl-C and cleared when the run has ended."""


def advance(amount: float) -> None:
    """Report progress from inside a task, in the units of the task."""
    go_on()
    note(amount)
    _report_to(amount)


def report_to(report: Advance | None) -> Advance:
    """Send the progress of this process to `report` from now on, and return the earlier receiver.

    report: function of one number; None ignores the progress.
    """
    global _report_to  # noqa: PLW0603  one process runs one task at a time
    before = _report_to
    _report_to = report or _nowhere
    return before


@contextlib.contextmanager
def reporting(progress: Advance | None) -> Iterator[None]:
    """Send the progress of tasks in this process to `progress` inside the block; None changes nothing."""
    before = report_to(_report_to if progress is None else progress)
    try:
        yield
    finally:
        report_to(before)


_leave = os._exit  # a call of a method refuses the name while it runs
_heard: list[float] = []
"""When the signals came that stop this run."""
AT_ONCE = 1.0
"""Seconds after a first signal from which a second one ends the process at once. Sooner, one Ctrl-C may count twice."""


def _stop(number: int, _: Any) -> None:
    """Remember a Ctrl-C, and raise it. A second one, or a third at any time, ends the process at once."""
    refuse_own(number)
    _heard.append(time.monotonic())
    if len(_heard) > 2 or _heard[-1] - _heard[0] >= AT_ONCE:
        _end_at_once(number)
    _ctrl_c.set()
    if len(_heard) == 1:
        raise KeyboardInterrupt


def _end_at_once(number: int) -> None:
    """End this process and its workers: what runs here catches every exception, or takes too long to end."""
    for worker in multiprocessing.active_children():
        worker.kill()
    with contextlib.suppress(OSError):
        clear = b"\r\x1b[J" if os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb" else b""  # a display's block
        os.write(2, clear + b"efface: stopped at once by another signal; the same command continues from here\n")
    _leave(128 + number)


_stops: Callable[..., None] = _stop
"""The handler of this process."""


def stop_at_signals(is_busy: Callable[[], bool], signals: Iterable[int] = STOPS) -> None:
    """In a worker process: let a signal stop the task at work, and end a worker that waits.

    A waiting worker ends at once, without a trace on the terminal.
    """

    def stop(number: int, _: Any) -> None:
        if not is_busy():
            _leave(1)
        refuse_own(number)
        _ctrl_c.set()
        raise KeyboardInterrupt

    for signum in signals:
        signal.signal(signum, stop)
    _WATCH.enter_context(watched())
    sys.unraisablehook = _without_stops(sys.unraisablehook)
    global _stops  # noqa: PLW0603  one process has one handler
    _stops = stop


_WATCH = contextlib.ExitStack()
"""What a worker keeps for as long as it lives."""


def _without_stops(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a hook for exceptions that Python ignores: it shows no trace of a Ctrl-C that the next task raises."""

    def show(unraisable: Any) -> None:
        if not (_ctrl_c.is_set() and unraisable.exc_type is KeyboardInterrupt):
            hook(unraisable)

    return show


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Make sure that a Ctrl-C inside the block is not lost, and let SIGTERM and SIGHUP stop the run like a Ctrl-C.

    Python ignores a KeyboardInterrupt inside some callbacks, such as those of weak references. In this case the next
    `advance`, or the next task, raises it. A library may turn it into an error of its own; it is a Ctrl-C again here.
    A second signal, `AT_ONCE` seconds or more after the first, ends the process; so does a third.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    heard = [signum for signum in STOPS if signal.getsignal(signum) is not signal.SIG_IGN]  # nohup ignores SIGHUP
    before = {signum: signal.signal(signum, _stop) for signum in heard}
    hook = sys.unraisablehook
    sys.unraisablehook = _without_stops(hook)
    try:
        with watched():
            yield
    except Exception as error:
        if _ctrl_c.is_set():
            raise KeyboardInterrupt from error
        raise
    finally:
        if sys.unraisablehook is not hook:
            sys.unraisablehook = hook
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _ctrl_c.clear()
        _heard.clear()


def is_stop(error: BaseException) -> bool:
    """Return True for a Ctrl-C, and False for an error or an exit that a task raised itself.

    Without `stoppable`, any KeyboardInterrupt may be a Ctrl-C. After one, any error is: a library may have turned it
    into an error of its own.
    """
    if _ctrl_c.is_set():
        return True
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not _stops


def is_stopped() -> bool:
    """Return True from a Ctrl-C on until the run has ended."""
    return _ctrl_c.is_set()


def go_on() -> None:
    """Raise KeyboardInterrupt if Python ignored a Ctrl-C; otherwise do nothing."""
    if _ctrl_c.is_set():
        raise KeyboardInterrupt
