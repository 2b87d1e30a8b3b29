"""What each worker says of its task: a small file in the run's folder, written at most twice a second.

The display of the command and `efface watch` read these files, whatever the executor, on any machine that sees the
folder. A worker removes its file when the task ends. A killed worker leaves it; readers then tell that it is silent.
"""

import contextlib
import functools
import json
import math
import os
import platform
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from efface.execute.task_folder import machine, read, runs, write

EVERY = 0.5
"""Seconds between two writes of a worker's file while a task runs."""
SILENCE = 120.0
"""Seconds without a report after which readers say so. One step of a slow method may take as long."""
_PREFIX = ".worker-"
_here = functools.cache(machine)


@dataclass
class TaskStatus:
    """The task of a worker, and how far it is.

    name: of the task. unit: of `cost`, `done` and `found`, such as "passes". cost: of the whole task. done: finished
    part of it. found: part that was there before, or was skipped. epoch: of the training, from 1; 0: no training.
    epochs: of the training. images: that this task worked through. before: images of the worker's earlier tasks.
    seconds: since the task began. machine, node, process: where the worker is; `node` is the name for a reader.
    """

    name: str
    unit: str
    cost: float
    done: float = 0.0
    found: float = 0.0
    epoch: int = 0
    epochs: int = 0
    images: float = 0.0
    before: float = 0.0
    seconds: float = 0.0
    machine: str = field(default_factory=_here)
    node: str = field(default_factory=platform.node)
    process: int = field(default_factory=os.getpid)


class _Training(NamedTuple):
    """A training within a task: images and cost of an epoch, epochs that were there, and the task before it began."""

    images: int
    cost: float
    found: int
    noted: float
    worked: float

    @property
    def resumed(self) -> float:
        """The cost of the epochs that were there."""
        return self.found * self.cost


class _Own(threading.local):
    """The task of this thread."""

    def __init__(self) -> None:
        self.status: TaskStatus | None = None
        self.path = Path()
        self.began = self.written = self.noted = self.before = 0.0
        self.training: _Training | None = None
        self.skips = False


_own = _Own()


_is_silent = False


def say_nothing() -> None:
    """Report nothing from now on: this process does a part of a task that another process reports."""
    global _is_silent  # noqa: PLW0603  for as long as this process lives
    _is_silent = True


@contextlib.contextmanager
def working_on(folder: Path, name: str, cost: float, unit: str) -> Iterator[None]:
    """Report the task of this thread inside the block, in a file in `folder`. Without a file the block runs as well.

    name: of the task, for a reader. cost: of the whole task; what `efface.execute.advance` reports adds up to it.
    unit: of the cost, in the plural.
    """
    if _is_silent:
        yield
        return
    _own.status = TaskStatus(name, unit, cost, before=_own.before)
    _own.path = folder / f"{_PREFIX}{platform.node()}-{os.getpid()}-{threading.get_native_id()}.json"
    _own.began, _own.noted, _own.training = time.monotonic(), 0.0, None
    _write(_own.status)
    try:
        yield
    finally:
        _own.before += _own.status.images
        _own.status = None
        with contextlib.suppress(OSError):
            _own.path.unlink(missing_ok=True)


def note(amount: float) -> None:
    """Note work that a task reports by `efface.execute.advance`. Outside a training an amount of 1 is an image."""
    status, training = _own.status, _own.training
    if status is None:
        return
    _own.noted += amount
    if _own.skips:
        status.found += amount
    elif training is None:
        status.images += amount
    _reach(status, _own.noted + (0.0 if training is None else training.resumed))


@contextlib.contextmanager
def training(epochs: int, images: int, *, cost: float, found: int) -> Iterator[None]:
    """Report a training inside the block, whose steps are told by `step`.

    epochs: in all. images, cost: of an epoch, the cost in the unit of the task. found: epochs that were there before.
    """
    status = _own.status
    if status is None:
        yield
        return
    now = _own.training = _Training(images, cost, found, _own.noted, status.images)
    status.epochs = epochs
    status.found += now.resumed
    try:
        yield
    finally:
        _own.noted += now.resumed
        _own.training, status.epoch = None, 0


def step(images: int) -> None:
    """Note a step of the training, of so many images."""
    status, training = _own.status, _own.training
    if status is None or training is None:
        return
    status.images += images
    epochs = training.found + (status.images - training.worked) / training.images
    status.epoch = min(math.ceil(epochs), status.epochs)
    _reach(status, training.noted + epochs * training.cost)


@contextlib.contextmanager
def already_there() -> Iterator[None]:
    """Let what is reported inside the block count as progress, but not as work: it was there before, or is skipped."""
    before, _own.skips = _own.skips, True
    try:
        yield
    finally:
        _own.skips = before


def _reach(status: TaskStatus, done: float) -> None:
    status.done = min(max(status.done, done), status.cost)
    if time.monotonic() - _own.written >= EVERY:
        _write(status)


def _write(status: TaskStatus) -> None:
    _own.written = time.monotonic()
    status.seconds = _own.written - _own.began
    with contextlib.suppress(OSError):  # the disk may be full, or the folder away
        write(_own.path, json.dumps(asdict(status)).encode())


class Seen(NamedTuple):
    """A status as a reader finds it. silent: seconds since it was written. has_ended: its process is known to be gone.

    worker: the file's name, which no other worker has.
    """

    status: TaskStatus
    worker: str
    silent: float
    has_ended: bool

    @property
    def is_sure(self) -> bool:
        """Return whether the worker reported lately, and was not seen to be gone."""
        return not self.has_ended and self.silent < SILENCE


class Statuses:
    """Reads the statuses in folders. It measures silence by its own clock as soon as it has seen a file twice."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = [*dict.fromkeys(folders)]
        self._texts: dict[Path, tuple[str, float]] = {}

    def look(self) -> list[Seen]:
        """Return the statuses that are there now, the longest task first."""
        found = []
        for path in (path for folder in self.folders for path in sorted(folder.glob(f"{_PREFIX}*.json"))):
            text = read(path)
            status = _parsed(text)
            if status is not None:
                ended = status.machine == _here() and not runs(status.process)
                found.append(Seen(status, path.name, self._silent(path, text), ended))
        return sorted(found, key=lambda seen: -seen.status.seconds)

    def _silent(self, path: Path, text: str) -> float:
        now = time.monotonic()
        if path not in self._texts:
            self._texts[path] = text, now - age(path)
        elif self._texts[path][0] != text:
            self._texts[path] = text, now
        return now - self._texts[path][1]

    def clear(self) -> None:
        """Remove all statuses: those that killed workers have left."""
        for path in (path for folder in self.folders for path in folder.glob(f"*{_PREFIX}*.json*")):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def age(path: Path) -> float:
    """Return the seconds since a file was written, by the clock of the file system; 0 if it is gone."""
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return 0.0


def _parsed(text: str) -> TaskStatus | None:
    """Return the status in a file; None if it is none, or is damaged."""
    try:
        return typed(TaskStatus("", "", 0.0), json.loads(text))
    except (ValueError, TypeError, KeyError):
        return None


def typed(example: Any, values: Any) -> Any:
    """Return the example, a dataclass, with these values.

    KeyError, TypeError, ValueError: a value is missing or of another type than in the example, or is not finite.
    """
    for each in fields(example):
        expected, value = type(getattr(example, each.name)), values[each.name]
        if isinstance(value, bool) or not isinstance(value, (int | float) if expected is float else expected):
            raise TypeError(f"{each.name} is {value!r}")
        if not isinstance(value, str) and not math.isfinite(value):
            raise ValueError(f"{each.name} is {value!r}")
    return replace(example, **{each.name: values[each.name] for each in fields(example)})
