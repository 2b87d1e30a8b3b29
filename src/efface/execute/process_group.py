"""Processes that do one part of a task together, each on a device of its own.

The process of the task starts them and watches over them. Each of them runs the same task until it reaches that part.
They talk to each other by torch.distributed, over the loopback interface of this machine.
"""

import contextlib
import os
import pickle
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import distributed

from efface.execute import task_status
from efface.execute.elsewhere import Place, packed
from efface.execute.progress import go_on
from efface.execute.starting import blocked, end_processes, workers_context
from efface.execute.worker import busy_with, leave, start_worker

_HANG = timedelta(hours=2)
"""How long a process waits for the others. The first one validates meanwhile."""
_LAST_WORDS = 5.0
"""Seconds in which other processes may say what went wrong, after the first has failed."""


class LostContactError(RuntimeError):
    """Another process of the group does not answer. It is not the reason of a failure."""


@dataclass(frozen=True)
class Member:
    """This process's place in a group.

    number: from 0. count: processes of the group. asked: what they were asked for.
    tell: sends a message to the process that started the group. Those of the first member are heard.
    """

    number: int
    count: int
    asked: Any
    tell: Callable[[Any], None]

    def finish(self, result: Any) -> NoReturn:
        """End the part that is done together. The result of the first member is that of the group."""
        raise _FinishedError(result)


class _FinishedError(BaseException):
    """Leaves the task. It is a BaseException, so that no task catches it."""


_MEMBER: Member | None = None
_TASK: tuple[Callable[[Any], Any], Any] | None = None
"""The task at work in this process, with the work in the form that another process can run."""


def member() -> Member | None:
    """Return this process's place in a group; None if it is in none."""
    return _MEMBER


@dataclass(frozen=True)
class Repeatable:
    """Work whose tasks other processes can run, too, as far as a part that is done by `together`.

    elsewhere: the same work for another process. It and the tasks pickle.
    """

    work: Callable[[Any], Any]
    elsewhere: Callable[[Any], Any]

    def __call__(self, task: Any) -> Any:
        """Return the result of the work."""
        global _TASK  # noqa: PLW0603  a process does one task at a time
        before, _TASK = _TASK, (self.elsewhere, task)
        try:
            return self.work(task)
        finally:
            _TASK = before


def refuse_torchrun() -> None:
    """ValueError: torchrun started this command several times. efface starts the processes of a training itself."""
    count = os.environ.get("WORLD_SIZE", "1")
    if "LOCAL_RANK" in os.environ and count != "1":
        raise ValueError(
            f"torchrun started this command as one of {count} processes, but efface starts the processes of a training "
            f"itself; run the command once, without torchrun, with fit.devices={count}"
        )


def together(count: int, kind: str, asked: Any, hear: Callable[[Any], None]) -> Any:
    """Run the task at work in `count` new processes until each has called `finish`, and return the first one's result.

    kind: `cuda`: process i has the GPU i. `cpu`: they share the processors.
    asked: what they are asked for. It pickles. hear: gets the messages of the first process.

    ValueError: there is no `Repeatable` task; it does not pickle; or a process ended. An exception in one of them is
    raised again here. All of them have ended when this returns.
    """
    if _TASK is None:
        raise ValueError(
            f"fit.devices: is {count}, but this training is no task of a stage, so no other process can repeat it; set "
            "devices to 1"
        )
    try:
        content = packed(_TASK)
    except ValueError as error:
        why = str(error).partition("(")[2].partition("); ")[0]
        raise ValueError(
            f"fit.devices: is {count}, but this task cannot be sent to other processes ({why}); define the functions "
            "and classes that it uses at the top level of a module, or set devices to 1"
        ) from error
    context, place, watched = workers_context(), Place.here(), list[_Watched]()
    with tempfile.TemporaryDirectory(prefix="efface-") as folder:
        try:
            for number in range(count):
                reader, writer = context.Pipe(duplex=False)
                start = _Start(number, count, kind, Path(folder), asked, place, torch.get_num_threads())
                process = context.Process(target=_run, args=(start, content, writer), name=f"efface-{number}")
                with blocked("SIGINT"):  # it cannot be stopped in an orderly way before `start_worker` has run
                    process.start()
                writer.close()
                watched.append(_Watched(start.named, process, reader))
            return _result(watched, hear)
        finally:
            end_processes([each.process for each in watched])


@dataclass
class _Watched:
    """A process of the group, as the one that started it sees it. error: when it failed, and why."""

    named: str
    process: Any
    pipe: Connection
    is_over: bool = False
    is_finished: bool = False
    error: tuple[float, Exception] | None = None

    def next_message(self) -> Any:
        """Return what the process tells or gives, or None. Call it if there is something to read."""
        try:
            what, value = pickle.loads(self.pipe.recv_bytes())  # noqa: S301  written by `_run`
        except (EOFError, OSError):  # it ended without a word
            self.is_over = True
            return None
        self.is_over, self.is_finished = what != "told", what == "finished"
        if what == "failed":
            self.error = value
        return value


def _result(watched: Sequence[_Watched], hear: Callable[[Any], None]) -> Any:
    """Return the result of the first process. A fault of any of them is raised."""
    until, first = float("inf"), watched[0]
    while (left := [each for each in watched if not each.is_over]) and time.monotonic() < until:
        go_on()
        ready = wait([each.pipe for each in left], timeout=0.5)
        for each in (each for each in left if each.pipe in ready):
            message = each.next_message()
            if first.is_finished:
                return message
            if each is first and not each.is_over:
                hear(message)
            if each.is_over and not each.is_finished:
                until = min(until, time.monotonic() + _LAST_WORDS)
    raise _fault(watched)


def _fault(watched: Sequence[_Watched]) -> Exception:
    """Return the error that ended the group: that of a process that ended without a word, or else the earliest."""
    for each in watched:
        if each.is_over and not each.is_finished and each.error is None:
            each.process.join(_LAST_WORDS)
            return ValueError(
                f"fit.devices: {each.named} ended {_how(each.process.exitcode)} during the training, so the others "
                "were stopped; the last whole epoch is kept: run the same command again, with fewer devices if "
                "memory was short"
            )
    errors = [each.error for each in watched if each.error is not None]
    return min(errors, key=lambda each: (isinstance(each[1], LostContactError), each[0]))[1]


def _how(status: int | None) -> str:
    if status is None or status >= 0:
        return "by itself" if status is None else f"with status {status}"
    with contextlib.suppress(ValueError):
        return f"by the signal {signal.Signals(-status).name}"
    return f"by the signal {-status}"


@dataclass(frozen=True)
class _Start:
    """What a process of a group is told when it starts. folder: where they find each other."""

    number: int
    count: int
    kind: str
    folder: Path
    asked: Any = field(repr=False)
    place: Place
    threads: int

    @property
    def named(self) -> str:
        """The process, in messages."""
        return f"process {self.number + 1} of {self.count}" + (f" (cuda:{self.number})" if self.kind == "cuda" else "")


def _run(start: _Start, content: bytes, pipe: Connection) -> None:
    """Run the task in a new process, and say how it ended. It never returns."""

    def send(what: str, value: Any) -> None:
        with contextlib.suppress(OSError):  # the process that started this one has stopped to listen
            pipe.send_bytes(pickle.dumps((what, value)))

    global _MEMBER  # noqa: PLW0603  this process is for this group alone
    start_worker(None, start.threads)
    _be_quiet(errors=start.number > 0)
    task_status.say_nothing()
    try:
        start.place.enter()
        _connect(start)
        _MEMBER = Member(start.number, start.count, start.asked, lambda message: send("told", message))
        work, task = pickle.loads(content)  # noqa: S301  written by `together`
        busy_with(work, task)
        error = ValueError(f"fit.devices: {start.named} found nothing to train")
        send("failed", (time.monotonic(), error))
    except _FinishedError as end:
        send("finished", end.args[0] if start.number == 0 else None)
    except KeyboardInterrupt:
        leave(1)
    except BaseException as error:  # noqa: BLE001  the process that started this one raises it again
        send("failed", (time.monotonic(), _sendable(error)))
    pipe.close()
    leave(0)  # a group that is taken down in order waits for those that are gone


def _sendable(error: BaseException) -> Exception:
    """Return an error that pickles, with its traceback as a note."""
    trace = "".join(traceback.format_exception(error))
    try:
        error.add_note(trace)
        pickle.loads(pickle.dumps(error))  # noqa: S301  written here
    except Exception:  # noqa: BLE001  pickle raises many types of exceptions
        error = RuntimeError(f"{type(error).__name__}: {error}")
        error.add_note(trace)
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")


def _be_quiet(*, errors: bool) -> None:
    """Print nothing: the process that started this one has said it. errors: no warnings, either."""
    nowhere = open(os.devnull, "w")  # noqa: PTH123, SIM115  open as long as this process
    sys.stdout = nowhere
    if errors:
        sys.stderr = nowhere


def _connect(start: _Start) -> None:
    """Join the group. Nothing leaves this machine."""
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    for library in ("GLOO", "NCCL") if loopback else ():
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", loopback[0])
    if start.kind == "cuda":
        torch.cuda.set_device(start.number)
    backend = "cpu:gloo,cuda:nccl" if start.kind == "cuda" else "gloo"
    store = distributed.FileStore(  # type: ignore[attr-defined]
        str(start.folder / "store"), start.count
    )
    distributed.init_process_group(backend, store=store, rank=start.number, world_size=start.count, timeout=_HANG)
