"""Workers that are forked from a process that has imported what they need, so that each starts in milliseconds."""

import contextlib
import io
import os
import resource
import signal
import socket
import sys
import threading
import weakref
from multiprocessing import context, popen_spawn_posix, reduction, resource_tracker, spawn, util
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

import efface
from efface.execute.fork_server import MOST_FILES, READY, Given, read_number
from efface.execute.starting import blocked


class _Server:
    """The process that forks workers, as the process sees it that asks for them.

    inherited: what a new process would have inherited at its start.
    """

    def __init__(self, inherited: object) -> None:
        self.inherited, self.is_fit = inherited, False
        self.socket, theirs = socket.socketpair()
        packages = {each.__name__: each.__file__ for each in (efface, torch)}
        source = str(Path(efface.__file__).parents[1])
        number = theirs.fileno()
        code = (  # until the server is ready, the end of the socket ends it by SIGIO: imports take seconds
            f"import fcntl, os, sys; fcntl.fcntl({number}, fcntl.F_SETOWN, os.getpid()); "
            f"fcntl.fcntl({number}, fcntl.F_SETFL, os.O_ASYNC); "
            f"sys.path[:] = filter(None, sys.path); {source!r} in sys.path or sys.path.append({source!r}); "
            f"from efface.execute.fork_server import serve; serve({number}, {packages!r})"
        )
        words = [spawn.get_executable(), *util._args_from_interpreter_flags(), "-c", code]  # type: ignore[attr-defined]  # noqa: SLF001
        with theirs, blocked("SIGINT", "SIGTERM", "SIGHUP"):
            pid = util.spawnv_passfds(words[0], words, [number])
        self._end = weakref.finalize(self, _end, pid, self.socket, os.getpid())
        try:
            self.is_fit = self.socket.recv(1) == READY
        except BaseException:
            os.kill(pid, signal.SIGKILL)  # it would import on for seconds
            self._end()
            raise

    def was_killed(self) -> bool:
        """Return whether a server that could fork has ended."""
        return self.is_fit and bool(wait([self.socket], 0))


def _end(pid: int, requests: socket.socket, owner: int) -> None:
    """End a server whose workers have ended. A fork of its process only forgets it."""
    if os.getpid() == owner:
        with contextlib.suppress(OSError):  # it may have ended
            requests.shutdown(socket.SHUT_RDWR)  # a fork of this process may hold it, too
    requests.close()
    if os.getpid() == owner:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


_SERVERS: dict[int, _Server] = {}
"""The server of this process, by the process's number: a fork of this process has none."""


def _server() -> _Server:
    """Return a server that has inherited what a new process would inherit now."""
    inherited, own = _inherited(), os.getpid()
    server = _SERVERS.get(own)
    if server is None or server.inherited != inherited or server.was_killed():
        _SERVERS.clear()
        server = _SERVERS[own] = _Server(inherited)
    return server


def _inherited() -> object:
    """Return what a new process inherits, but for its folder, which multiprocessing tells each worker."""
    streams = []
    for descriptor in range(3):
        with contextlib.suppress(OSError):
            found = os.fstat(descriptor)
            streams.append((descriptor, found.st_dev, found.st_ino))
    limits = [resource.getrlimit(each) for name, each in vars(resource).items() if name.startswith("RLIMIT_")]
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    mask = [line for line in status if line.startswith("Umask")]  # os.umask would change that of other threads
    ignored = [each for each in signal.valid_signals() if signal.getsignal(each) is signal.SIG_IGN]
    return dict(os.environ), sys.warnoptions[:], streams, limits, mask, os.sched_getaffinity(0), os.nice(0), ignored


class _Popen(popen_spawn_posix.Popen):
    """A forked worker, as the process sees it that asked for it."""

    DupFd = Given  # type: ignore[assignment]
    _fds: list[int]

    def duplicate_for_child(self, fd: int) -> int:
        """Return the number by which the worker finds a file."""
        self._fds.append(fd)
        return len(self._fds) - 1

    def _launch(self, process_obj: Any) -> None:
        self._server, self._asking = _server(), threading.Lock()  # the server lives as long as its workers
        content = io.BytesIO(b"-")  # the first byte says that there is more
        content.seek(1)
        told = spawn.get_preparation_data(process_obj.name)
        if not Path(told.get("init_main_from_path", os.curdir)).exists():  # a program from the standard input
            del told["init_main_from_path"]
        context.set_spawning_popen(self)
        try:
            reduction.dump(told, content)
            reduction.dump(process_obj, content)
        finally:
            context.set_spawning_popen(None)
        if len(self._fds) > MOST_FILES - 3:
            raise OSError(f"a worker can be given {MOST_FILES - 3} open files at most; this one needs {len(self._fds)}")
        tracker = resource_tracker.getfd()
        assert tracker is not None
        read, write = os.pipe()
        self.sentinel, status = os.pipe()
        self.finalizer = util.Finalize(self, util.close_fds, (write, self.sentinel))  # type: ignore[attr-defined]
        try:
            reduction.sendfds(self._server.socket, [read, status, tracker, *self._fds])
        finally:
            os.close(read)
            os.close(status)
        pid = read_number(self.sentinel)
        if pid is None:
            raise BrokenPipeError
        self.pid = pid
        with open(write, "wb", closefd=False) as pipe:
            pipe.write(content.getbuffer())

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return how the worker ended; None if it has not. Without the server nobody knows, so it is killed."""
        if self.returncode is None and wait([self.sentinel], 0 if flag == os.WNOHANG else None):
            with self._asking:  # several threads wait for a worker, and one of them reads how it ended
                if self.returncode is None:
                    self.returncode = read_number(self.sentinel)
                if self.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(self.pid, signal.SIGKILL)
                    self.returncode = -signal.SIGKILL
        return self.returncode


class Worker(context.SpawnProcess):
    """A process that is forked where it is safe."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802  as multiprocessing calls it
        with blocked("SIGINT", "SIGTERM", "SIGHUP"):  # a worker is started as a whole, or not at all
            if _server().is_fit:
                try:
                    return _Popen(process_obj)
                except (BrokenPipeError, ConnectionResetError):  # something killed the server, or this worker
                    if _SERVERS[os.getpid()].was_killed():
                        _SERVERS.clear()
        return popen_spawn_posix.Popen(process_obj)


class Workers(context.SpawnContext):
    """The context of multiprocessing whose processes are forked where it is safe. It waits here for the server."""

    Process = Worker

    def __init__(self) -> None:
        _server()
