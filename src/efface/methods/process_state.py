"""The state of the process around a call of a method: it is afterwards as it was before, and no call lasts for ever."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import torch

from efface.execute.own_signals import calls_method
from efface.methods.torch_state import torch_kept

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM") if hasattr(signal, name))


_leave = os._exit
"""Python's own: a call of a method sees another."""

SWALLOWED = 5
"""Seconds for which a method may catch the end of its time; then its process ends."""


class MethodLeftError(Exception):
    """A method tried to end the process."""


class MethodTimeoutError(BaseException):
    """A call lasted too long. It is no Exception, so that no method catches it."""


@contextmanager
def process_kept(culprit: str = "a method") -> Iterator[None]:
    """Restore after the block what a method may have changed of the process, also after an exception.

    Gradient mode, default type, torch's threads and what `torch_kept` names, working folder, signal handlers and the
    alarm, NumPy's treatment of errors, standard output and standard error. `os._exit` raises MethodLeftError inside.
    Threads that are started inside are daemons unless told otherwise, so that none of them keeps the process alive.
    A signal that the block sends to its own process fails it, see `efface.execute.own_signals`. If the block closes
    files that it did not open, the process ends, because what efface writes could come into other files.

    culprit: what runs in the block, for that message.
    """
    try:
        mark = _mark()
    except OSError:
        _leave_closed("a method that ran before, or a thread that it left")
    before = _state()
    thread = threading.current_thread()
    daemon = thread.daemon
    thread._daemonic = True  # type: ignore[attr-defined]  # noqa: SLF001  new threads inherit it; no setter may be used
    streams = [(stream, os.dup(stream)) for stream in (1, 2) if _is_open(stream)]
    os._exit = _refused(os.getpid(), os._exit)  # type: ignore[assignment]
    was_inside = calls_method(inside=True)
    try:
        with torch_kept():
            yield
    finally:
        thread._daemonic = daemon  # type: ignore[attr-defined]  # noqa: SLF001
        os._exit = before["exit"]
        try:
            for stream, kept in streams:
                if not _is_open(stream):
                    os.dup2(kept, stream)
                os.close(kept)
            closed = _mark() != mark
        except OSError:
            closed = True
        if closed:
            _leave_closed(culprit)
        _restore(before)
        calls_method(inside=was_inside)


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Raise MethodTimeoutError inside the block after so many seconds, also in Python code that never returns.

    A method that catches this error is told again each second. After `SWALLOWED` seconds its process ends. Only the
    main thread of a process on a system with alarms can be stopped. None does nothing.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if seconds is None or not is_main or not hasattr(signal, "setitimer"):
        yield
        return

    raised = 0

    def stop(_: int, __: FrameType | None) -> None:
        nonlocal raised
        raised += 1
        if raised > SWALLOWED:
            said = "a method caught the end of its time and did not return, so its process ends; run the same command"
            os.write(2, f"efface: {said} again, which names the method and goes on\n".encode())
            _leave(1)
        raise MethodTimeoutError

    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def _state() -> dict[str, Any]:
    folder = None
    with suppress(OSError):  # a working folder may have been removed
        folder = os.getcwd()  # noqa: PTH109  as `os.chdir` takes it
    return {
        "exit": os._exit,
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "folder": folder,
        "handlers": {number: signal.getsignal(number) for number in _SIGNALS},
        "alarm": signal.getitimer(signal.ITIMER_REAL) if hasattr(signal, "getitimer") else None,
        "errors": np.geterr(),
        "depth": sys.getrecursionlimit(),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
    }


def _restore(before: dict[str, Any]) -> None:
    now = _state()
    sys.stdin, sys.stdout, sys.stderr = before["streams"]
    _open_again("stdout", 1)
    _open_again("stderr", 2)
    setters: dict[str, Callable[[Any], Any]] = {
        "grad": torch.set_grad_enabled,
        "dtype": torch.set_default_dtype,
        "threads": torch.set_num_threads,
        "folder": os.chdir,
        "errors": lambda errors: np.seterr(**errors),
        "depth": sys.setrecursionlimit,
    }
    for name, put in setters.items():
        if now[name] != before[name] and before[name] is not None:
            put(before[name])
    if threading.current_thread() is threading.main_thread():
        for number, handler in before["handlers"].items():
            if now["handlers"][number] != handler and handler is not None:
                signal.signal(number, handler)
        if before["alarm"] is not None and before["alarm"] == (0.0, 0.0) != now["alarm"]:
            signal.setitimer(signal.ITIMER_REAL, 0)


_MARK = -1
"""A file of efface that a method has no reason to close: the end of a pipe, which no other file can be taken for."""


def _mark() -> tuple[int, int]:
    """Return what tells that file from every other. OSError: it was closed."""
    global _MARK
    if _MARK < 0:
        _MARK, other = os.pipe()
        os.close(other)
    status = os.fstat(_MARK)
    return status.st_ino, status.st_dev


def _leave_closed(culprit: str) -> NoReturn:
    """End the process: its files are closed, and other files may have their numbers by now."""
    said = f"{culprit}: closed files of efface, so this process ends; close only what the method itself has opened"
    try:
        os.write(2, f"efface: {said}. The same command names the method and goes on\n".encode())
    finally:  # also if a signal came: the end of its files looks like its own end, so that it may be told to stop
        _leave(1)


def _open_again(name: str, stream: int) -> None:
    """Open a standard stream that a method closed."""
    closed = getattr(sys, name)
    if not getattr(closed, "closed", False):
        return
    opened = open(stream, "w", closefd=False, encoding="utf-8", buffering=1)  # noqa: SIM115  for the process
    setattr(sys, name, opened)
    if getattr(sys, f"__{name}__") is closed:
        setattr(sys, f"__{name}__", opened)


def _is_open(stream: int) -> bool:
    try:
        os.fstat(stream)
    except OSError:
        return False
    return True


def _refused(process: int, leave: Callable[[int], Any]) -> Callable[[int], Any]:
    """Return an `os._exit` that raises in this process, and ends a process that a method has forked."""

    def refuse(status: int) -> Any:
        if os.getpid() != process:
            leave(status)
        raise MethodLeftError(f"os._exit({status}) would have ended the whole run")

    return refuse
