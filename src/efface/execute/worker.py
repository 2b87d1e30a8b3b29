"""What a process does that works for a run of another process."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from efface.execute.attempt import set_torch_defaults
from efface.execute.lines import Lines
from efface.execute.progress import Advance, is_stopped, report_to, stop_at_signals

Task = TypeVar("Task")

leave = os._exit
"""Ends this process at once. It is bound here, because a call of a method refuses `os._exit` while it runs."""
_BUSY = False
"""True while this worker runs a task."""


def start_worker(report: Advance | None, threads: int, tell: Callable[[str], None] | None = None) -> None:
    """Prepare this process for tasks: signals, torch, and where progress goes. It ends with its parent process.

    threads: threads of torch, at least 1. tell: gets the lines that tasks print, if this process has the terminal.
    """
    report_to(report)
    if tell is not None:
        for name in ("stdout", "stderr"):
            if (stream := getattr(sys, name)).isatty():
                setattr(sys, name, Lines(stream, tell))
    stop_at_signals(lambda: _BUSY)
    if hasattr(signal, "pthread_sigmask"):
        if signal.SIGINT in signal.sigpending():  # a Ctrl-C of the terminal is for the parent, which ends its workers
            signal.sigwait({signal.SIGINT})
        stopped_by = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stopped_by)  # blocked while this process started
    set_torch_defaults(threads)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def busy_with(work: Callable[[Task], Any], task: Task) -> Any:
    """Return the result of the work for the task. A signal that stops the run ends this process."""
    global _BUSY  # noqa: PLW0603  a worker does one task at a time
    _BUSY = True
    try:
        return work(task)
    finally:
        _BUSY = False
        if is_stopped():  # nobody waits for this result, and to send it may fail with a trace on the terminal
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            leave(1)


def _die_with_parent() -> None:
    """Exit with the parent process, so that a killed run leaves no worker that writes into its files."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        leave(1)
