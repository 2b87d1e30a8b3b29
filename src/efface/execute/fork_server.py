"""The process that forks workers. It has imported what they need; `efface.execute.forked` starts it."""

import atexit
import fcntl
import gc
import importlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable
from multiprocessing import reduction, resource_tracker, spawn, util
from multiprocessing.connection import wait
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

MOST_FILES = 250
"""Files that a worker can be given at its start; the system takes hardly more in one message."""
READY, UNFIT = b"r", b"u"
IMPORTED = ("efface.stages.work.extraction", "efface.stages.work.measuring", "torch._dynamo")
"""What the server imports for its workers. An optimizer imports torch._dynamo, which takes a second."""
_GIVEN: list[int] = []
"""In a worker: the files that it was given at its start."""


class Given:
    """A file that a worker was given. It pickles as its number in the order of all of them."""

    def __init__(self, number: int) -> None:
        self.number = number

    def detach(self) -> int:
        """Return its descriptor in this worker."""
        return _GIVEN[self.number]


def serve(descriptor: int, expected: dict[str, str]) -> NoReturn:
    """Import what workers need, tell `READY`, and fork a worker for each request, until the socket ends.

    A process that has threads, or that has touched a GPU, cannot be forked: it tells `UNFIT` and ends. The end of the
    socket is the end of the process that asks, and ends this process and all workers. Signals that stop a run are
    blocked here; a worker unblocks them.

    descriptor: of the socket. expected: packages, with the files from which the process that asks has them.
    """
    requests = socket.socket(fileno=descriptor)
    try:
        is_fit = _import_all(expected) and _can_fork()
    except Exception:  # noqa: BLE001  workers then start as new interpreters, where the error shows
        is_fit = False
    fcntl.fcntl(requests, fcntl.F_SETFL, 0)  # its end is an event from now on, and no signal
    try:
        requests.sendall(READY if is_fit else UNFIT)
    except OSError:  # nobody is there any more
        is_fit = False
    if is_fit:
        util._flush_std_streams()  # type: ignore[attr-defined]  # noqa: SLF001  or each worker would write it again
        gc.collect()
        gc.freeze()  # a collection in a worker would write to the memory of all that is imported, and so copy it
        _fork_on_request(requests)
    os._exit(0)


def _import_all(expected: dict[str, str]) -> bool:
    for name in IMPORTED:
        importlib.import_module(name)
    return all(sys.modules[name].__file__ == file for name, file in expected.items())


def _can_fork() -> bool:
    """Return whether this process has one thread, and has not touched a GPU. A BLAS ends its threads at a fork."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    own, until = Path("/proc/self"), time.monotonic() + 0.1
    while len(list((own / "task").iterdir())) > 1:  # a thread that has ended may be listed for a moment
        if time.monotonic() > until:
            return False
    return "libcuda.so" not in (own / "maps").read_text()


def _fork_on_request(requests: socket.socket) -> None:
    heard, tell = os.pipe()
    for each in (heard, tell):
        os.set_blocking(each, False)
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(tell)
    workers: dict[int, int] = {}
    while True:
        ready = wait([requests, heard])
        if heard in ready:
            os.read(heard, 1 << 16)
            _report_ended(workers)
        if requests not in ready:
            continue
        try:
            data, status, *given = reduction.recvfds(requests, MOST_FILES)
        except Exception:  # noqa: BLE001  the end of the socket, or a message that cannot be read
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            return
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, before)
            requests.close()
            _become_worker(data, given, unused=(heard, tell, status, *workers.values()))
        for each in (data, *given):
            os.close(each)
        workers[pid] = status
        write_number(status, pid)


def _report_ended(workers: dict[int, int]) -> None:
    """Tell how each worker ended that has ended."""
    while workers:
        pid, ended = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        status = workers.pop(pid)
        write_number(status, os.waitstatus_to_exitcode(ended))
        os.close(status)


def _become_worker(data: int, given: list[int], unused: Iterable[int]) -> NoReturn:
    """Do what a new interpreter of multiprocessing does, and end."""
    code = 1
    try:
        for each in unused:
            os.close(each)
        resource_tracker._resource_tracker._fd = given[0]  # type: ignore[attr-defined]  # noqa: SLF001
        _GIVEN[:] = given[1:]
        if not os.read(data, 1):  # a stop came before the process that asked had told what to do
            os._exit(code)
        importlib.invalidate_caches()
        np.random.seed()  # noqa: NPY002  each worker draws numbers of its own, as a new interpreter does
        torch.default_generator.seed()
        code = spawn._main(data, os.dup(data))  # noqa: SLF001
        atexit._run_exitfuncs()  # noqa: SLF001
        util._flush_std_streams()  # type: ignore[attr-defined]  # noqa: SLF001
    except BaseException:  # noqa: BLE001  as in a new interpreter
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def write_number(pipe: int, number: int) -> None:
    """Write a whole number into a pipe. Nothing happens if nobody reads it any more."""
    try:
        os.write(pipe, number.to_bytes(8, "little", signed=True))
    except BrokenPipeError:
        return


def read_number(pipe: int) -> int | None:
    """Return the next whole number of a pipe; None if it ended."""
    found = os.read(pipe, 8)
    return int.from_bytes(found, "little", signed=True) if found else None
