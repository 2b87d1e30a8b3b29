"""Signals that a method sends to its own process. They fail the method; they do not stop the run like a Ctrl-C."""

import _thread
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that stop a run."""

_ENDING = {*STOPS, *(getattr(signal, name) for name in ("SIGKILL", "SIGQUIT", "SIGABRT") if hasattr(signal, name))}
_SENT: set[int] = set()
"""Signals that the method at work has sent to this process, and that have not arrived yet."""
_begun = 0
"""Number of threads that were started by `_thread` itself. They have no name, and count only after they began."""
_inside = False
"""True while a method is called."""
_earlier: list[threading.Thread] = []
"""The threads that ran before that call."""


def calls_method(*, inside: bool) -> bool:
    """Say whether a method is called from now on, and return what held before."""
    global _inside, _earlier  # noqa: PLW0603  one process calls one method at a time
    before, _inside = _inside, inside
    if inside:
        _earlier = threading.enumerate()
    else:
        _SENT.clear()
    return before


def refuse_own(number: int) -> None:
    """Raise KeyboardInterrupt with a text if the method at work has sent this signal itself; else do nothing."""
    if number in _SENT:
        _SENT.discard(number)
        raise KeyboardInterrupt(f"it sent the signal {_name(number)} to its own process")


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Watch inside the block which signals this process sends itself with Python's functions.

    A signal that a method sends raises a KeyboardInterrupt of its own in it, as `refuse_own` says. A method may stop
    neither the group of processes nor a parent of a worker, which are the command and the server of workers:
    RuntimeError. A thread that a method left ends if it sends one later. Functions that were imported by name before
    the block, code in C and other processes are not seen.
    """
    before = [(holder, name, getattr(holder, name)) for holder, name in _SENDERS if hasattr(holder, name)]
    for holder, name, real in before:
        setattr(holder, name, _watched(real, name))
    start = _thread.start_new_thread
    _thread.start_new_thread = _counted(start)
    try:
        yield
    finally:
        _thread.start_new_thread = start
        for holder, name, real in before:
            setattr(holder, name, real)


def threads_begun() -> int:
    """Return how many threads without a name were started inside `watched` so far."""
    return _begun


def _counted(start: Callable[..., int]) -> Callable[..., int]:
    def start_new_thread(*arguments: Any, **settings: Any) -> int:
        global _begun  # noqa: PLW0603  of this process
        _begun += 1
        return start(*arguments, **settings)

    return start_new_thread


_SENDERS = (
    (os, "kill"),
    (os, "killpg"),
    (signal, "raise_signal"),
    (signal, "pthread_kill"),
    (_thread, "interrupt_main"),
)


def _watched(real: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return the function that sends a signal, with the rules of `watched`."""

    def send(*arguments: Any, **settings: Any) -> Any:
        number, to = _read(name, arguments)
        thread = threading.current_thread()
        is_left = thread is not threading.main_thread() and (not _inside or thread in _earlier)
        if number not in _ENDING or to is None or not (_inside or is_left):
            return real(*arguments, **settings)
        said = f"{name}({', '.join(map(str, arguments))})"
        if is_left:
            _say(f"a thread that a method left ({thread.name}) called {said}, and was ended")
            raise SystemExit  # ends the thread alone
        if to == "others":
            raise RuntimeError(f"{said} would have ended the whole run, not the method alone")
        if number in STOPS:
            _SENT.add(number)
        return real(*arguments, **settings)

    return send


def _read(name: str, arguments: tuple[Any, ...]) -> tuple[int, str | None]:
    """Return the number of the signal, and whom it reaches: this process, "others" of the run, or nobody of it."""
    if name == "interrupt_main":
        return int(arguments[0]) if arguments else int(signal.SIGINT), "itself"
    if not arguments or not all(isinstance(argument, int) for argument in arguments):
        return 0, None  # the function says what is wrong
    number = int(arguments[-1])
    if name in ("raise_signal", "pthread_kill"):
        return number, "itself"
    target, group, parent = arguments[0], os.getpgid(0), multiprocessing.parent_process()
    if name == "killpg":
        return number, "others" if target in (0, group) else None
    if target in (0, -1, -group) or (parent is not None and target in (parent.pid, os.getppid())):
        return number, "others"
    return number, "itself" if target == os.getpid() else None


def _say(sentence: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"efface: {sentence}\n".encode())


def _name(number: int) -> str:
    return signal.Signals(number).name
