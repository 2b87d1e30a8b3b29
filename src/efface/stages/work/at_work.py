"""Notes of what is at work. A note that is left behind names the task during which a process ended."""

import contextlib
import faulthandler
import hashlib
import platform
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

import efface
from efface.execute import Failure
from efface.store.own_file import OwnFile

_PREFIX = ".at_work-"
_LIBRARIES = (str(Path(efface.__file__).parent), str(Path(torch.__file__).parent))
_PLACE = re.compile(r'^  File "(.+)", line (\d+) in ', re.MULTILINE)
_KIND = re.compile(r"^Fatal Python error: (.+)$", re.MULTILINE)


class Subject(NamedTuple):
    """The method or metric that a task runs.

    name: the method or the metric, as messages name it. Tasks with the same name are suspected together.
    part: the part of its work that the task is.
    """

    name: str
    part: str


@dataclass(frozen=True)
class Noted:
    """Work that leaves a note in the run's folder for as long as it runs. It pickles if `work` and `subject` do."""

    work: Callable[[Any], Any]
    folder: Path
    subject: Callable[[Any], Subject]

    def __call__(self, task: Any) -> Any:
        """Return the result of the work for the task."""
        with noted(self.folder, self.subject(task)):
            return self.work(task)


@contextlib.contextmanager
def noted(folder: Path, subject: Subject) -> Iterator[None]:
    """Keep a note of the subject while the block runs. A crash of the interpreter writes its trace into the note.

    The note stays if the block closed its file: this process must end then, and a signal may come before it does.

    folder: the folder of a run. If it does not exist, or no file can be written there, the block runs without a note.
    """
    path = _path(folder, subject)
    try:
        path.unlink(missing_ok=True)  # it may be a link to somewhere else
        path.touch(exist_ok=False)
        file = OwnFile(path)
    except OSError:
        yield
        return
    note = file.checked()
    note.write(("\n".join((*subject, platform.node())) + "\n").encode())
    was_enabled = faulthandler.is_enabled()
    faulthandler.enable(note.fileno())
    try:
        yield
    finally:
        if file.is_open():
            path.unlink(missing_ok=True)
        faulthandler.disable()
        file.abandon()
        if was_enabled and sys.__stderr__ is not None:
            with contextlib.suppress(OSError, ValueError):  # it may be closed, or no file
                faulthandler.enable(sys.__stderr__)


def left(folder: Path) -> dict[str, str]:
    """Return the subjects whose notes are left in the folder of a run, each with how its process ended, in words."""
    ends: dict[str, str] = {}
    for text in _notes(folder).values():
        name, end = text.partition("\n")[0], _end(text)
        ends[name] = end or ends.get(name, _UNKNOWN)
    return ends


def is_crash(end: str) -> bool:
    """Return whether the code itself ended its process. A process that was killed may have been innocent."""
    return end != _UNKNOWN


def ended_in(folder: Path, subject: Subject) -> str | None:
    """Return how the process of this task ended, in words; None if the task left no note."""
    path = _path(folder, subject)
    return (_end(_text(path)) or _UNKNOWN) if path.exists() else None


def forget(folder: Path, name: str) -> None:
    """Remove the notes of a subject."""
    for path, text in _notes(folder).items():
        if text.partition("\n")[0] == name:
            path.unlink(missing_ok=True)


def died(end: str) -> Failure:
    """Return the failure of a task whose process ended."""
    return Failure(f"its process ended {end}; it is left out, and the others continue", f"the process ended {end}\n")


_UNKNOWN = (
    "without an error (something killed it, such as the system when memory ran out, or the code that it ran ended it)"
)


def _path(folder: Path, subject: Subject) -> Path:
    return folder / f"{_PREFIX}{hashlib.sha256(repr(tuple(subject)).encode()).hexdigest()[:16]}.txt"


def _notes(folder: Path) -> dict[Path, str]:
    """Return the notes that are in the folder of a run, with their texts."""
    return {path: _text(path) for path in sorted(folder.glob(f"{_PREFIX}*.txt"))}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _end(text: str) -> str | None:
    """Return the kind of a crash and the place in the user's own code, from the trace in a note; None: no trace."""
    kind = _KIND.search(text)
    if kind is None:
        return None
    places = [(file, line) for file, line in _PLACE.findall(text) if not file.startswith(_LIBRARIES)]
    own = next((f" at {Path(file).name}:{line}" for file, line in places if "/lib/python" not in file), "")
    return f"with '{kind[1]}'{own}"
