"""Tasks that wait in a folder, for processes of any machine that sees it. No locks: those of NFS are not to be trusted.

A process claims a task by making a file that must not exist, which is atomic on NFS too. Every other file is written
under another name and renamed. A process shows that it lives by a file that it writes again and again; others compare
its text with what they read before, by their own clocks.
"""

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

BEAT = 2.0
"""Seconds between two signs of life."""
SILENCE = 60.0
"""Seconds without a sign of life after which a process on another machine counts as dead. NFS keeps files as long."""
_SECONDS = struct.Struct("d")


@dataclass(frozen=True)
class TaskFolder:
    """The files of one call of an executor."""

    path: Path

    def fill(self, work: bytes, tasks: list[bytes]) -> None:
        """Write the work and the tasks, which are numbered from 0."""
        for name in ("tasks", "claims", "done", "let_go", "lives"):
            (self.path / name).mkdir(parents=True)
        for number, task in enumerate(tasks):
            write(self.path / "tasks" / str(number), task)
        write(self.path / "work", work)

    def work(self) -> bytes:
        """Return the work."""
        return (self.path / "work").read_bytes()

    def task(self, number: int) -> bytes:
        """Return a task."""
        return (self.path / "tasks" / str(number)).read_bytes()

    def numbers(self, name: str) -> set[int]:
        """Return the numbers of the files of a folder: "tasks", "claims", "done"."""
        return {int(each) for each in os.listdir(self.path / name) if each.isdecimal()}  # noqa: PTH208  names are enough

    def claim(self, lane: str) -> int | None:
        """Claim an open task for a lane, and return its number; None: no task is open."""
        for number in sorted(self.numbers("tasks") - self.numbers("claims")):
            try:
                with (self.path / "claims" / str(number)).open("x") as file:
                    file.write(lane)
            except FileExistsError:
                continue
            return number
        return None

    def claimed(self, lanes: Collection[str], numbers: Iterable[int], *, all_have_ended: bool = False) -> list[int]:
        """Return those of the tasks that these lanes have claimed.

        all_have_ended: no lane runs any more, so every claim counts. A lane that was killed while it made its claim may
            have left no name in it.
        """
        if not lanes:
            return []
        claims = {number: self.path / "claims" / str(number) for number in numbers}
        if all_have_ended:
            return [number for number, claim in claims.items() if claim.exists()]
        return [number for number, claim in claims.items() if read(claim) in lanes]

    def free(self, number: int) -> None:
        """Take a claim back."""
        (self.path / "claims" / str(number)).unlink(missing_ok=True)

    def let_go(self, number: int, lane: str) -> None:
        """Give a task back that was begun, and note that."""
        (self.path / "let_go" / f"{number}-{lane}").touch()
        self.free(number)

    def times_let_go(self, number: int) -> int:
        """Return how often a task was given back."""
        return len(list((self.path / "let_go").glob(f"{number}-*")))

    def finish(self, number: int, answer: bytes, seconds: float) -> None:
        """Write the answer to a task, and the seconds that it took."""
        write(self.path / "done" / str(number), _SECONDS.pack(seconds) + answer)

    def answer(self, number: int) -> tuple[bytes, float]:
        """Return the answer to a task with its seconds, and remove its files."""
        path = self.path / "done" / str(number)
        content = path.read_bytes()
        (self.path / "tasks" / str(number)).unlink(missing_ok=True)
        path.unlink()
        return content[_SECONDS.size :], _SECONDS.unpack_from(content)[0]

    def life(self, who: str) -> Path:
        """Return the sign of life of a lane, or of the "driver"."""
        return self.path / "lives" / who


def write(path: Path, content: bytes) -> None:
    """Write a file that readers find whole or not at all."""
    hidden = path.with_name(f".{path.name}.new")
    hidden.write_bytes(content)
    hidden.replace(path)


def read(path: Path) -> str:
    """Return the text of a file; "" if it does not exist or cannot be read just now."""
    try:
        return path.read_text()
    except OSError:
        return ""


class Beating:
    """Shows that this process lives, in a thread, until `stop`. Then the file is removed.

    each: called at each beat, in the thread.
    """

    def __init__(self, path: Path, each: Callable[[], None] | None = None) -> None:
        self.path, self._each, self._over, self._count = path, each, threading.Event(), 0
        self._beat()
        self._thread = threading.Thread(target=self._run, daemon=True, name="signs of life")
        self._thread.start()

    def _beat(self) -> None:
        self._count += 1
        with contextlib.suppress(OSError):  # the disk may be full or away for a moment
            write(self.path, f"{machine()} {os.getpid()} {self._count}".encode())

    def _run(self) -> None:
        while not self._over.wait(BEAT):
            self._beat()
            if self._each is not None:
                self._each()

    def stop(self) -> None:
        """End the thread and remove the file."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


class Watched:
    """What another process shows of its life."""

    def __init__(self, path: Path) -> None:
        self.path, self._text, self._since, self._changes = path, "", time.monotonic(), 0
        self.look()

    def look(self) -> bool:
        """Read the file, and return whether the process has shown itself so far."""
        text = read(self.path)
        if text and text != self._text:
            self._text, self._since, self._changes = text, time.monotonic(), self._changes + 1
        return bool(self._text)

    def lives(self) -> bool:
        """Return whether the process lives. On another machine it counts as alive for `SILENCE` seconds."""
        self.look()
        if self.is_here():
            return runs(int(self._text.split()[1]))
        return time.monotonic() - self._since < SILENCE

    def is_here(self) -> bool:
        """Return whether the process belongs to this machine."""
        return self._text.split()[:1] == [machine()]

    def is_sure(self) -> bool:
        """Return whether one look is enough to know that the process lives: it is here, or has beaten."""
        return self.is_here() or self._changes > 1

    def has_gone(self) -> bool:
        """Return whether the process was seen, and has removed its file."""
        return bool(self._text) and not self.path.exists()


def runs(process: int) -> bool:
    """Return whether a process of this machine runs."""
    if Path("/proc/self/stat").exists():
        state = read(Path(f"/proc/{process}/stat")).rpartition(")")[2].split()
        return bool(state) and state[0] != "Z"
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def machine() -> str:
    """Return the name of this machine, and of its container if there is one: where process numbers have a meaning."""
    space = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {space.readlink() if space.is_symlink() else ''}".strip().replace(" ", ":")
