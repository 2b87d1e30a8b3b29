"""Lines on work that is under way: of a stage in all, and of each worker. The command and `efface watch` show them."""

import contextlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from efface.execute.task_folder import machine, read, runs, write
from efface.execute.task_status import SILENCE, Seen, age, typed
from efface.stages.run.progress import duration
from efface.stages.run.speed import roughly

_FILE = ".progress.json"
_BEGINNING = 2.0
"""Seconds in which no speed is told."""
_SHORTEST = 12
"""Characters that the name of a task keeps in a narrow terminal."""


@dataclass(frozen=True)
class Totals:
    """A stage in all.

    stage: its word. unit: of `total` and `done`. tasks: 0 for a stage that is one task. finished: tasks, with those
    that failed. running: -1: not known. images_per_second: of all workers; 0: not known. left_seconds: -1: not known.
    seconds: since it began. where: the folder of the results.
    """

    stage: str
    unit: str
    total: float
    done: float
    tasks: int
    finished: int
    failed: int
    running: int
    images_per_second: float
    left_seconds: float
    seconds: float
    where: str
    machine: str = field(default_factory=machine)
    node: str = field(default_factory=platform.node)
    process: int = field(default_factory=os.getpid)

    def keep(self, folder: Path) -> None:
        """Write them into the folder of a run, for `efface watch`."""
        with contextlib.suppress(OSError):
            write(folder / _FILE, json.dumps(asdict(self)).encode())

    @classmethod
    def kept(cls, folder: Path) -> tuple["Totals", float] | None:
        """Return what a command that works now has kept, with the seconds since then; None: there is no command."""
        try:
            found: Totals = typed(_NOTHING, json.loads(read(folder / _FILE)))
        except (ValueError, TypeError, KeyError):
            return None
        if found.machine == machine() and not runs(found.process):
            return None
        return found, age(folder / _FILE)

    @staticmethod
    def forget(folder: Path) -> None:
        """Remove what is kept in a folder."""
        with contextlib.suppress(OSError):
            (folder / _FILE).unlink(missing_ok=True)


_NOTHING = Totals("", "", 0.0, 0.0, 0, 0, 0, 0, 0.0, 0.0, 0.0, "")


def total_line(totals: Totals) -> str:
    """Return the line of a stage under way."""
    percent = int(100 * min(1.0, totals.done / totals.total)) if totals.total > 0 else 100
    failed = f", {totals.failed} failed" if totals.failed else ""
    if totals.tasks:
        running = min(totals.running, totals.tasks - totals.finished)
        counts = f"{totals.finished - totals.failed} done{failed}{f', {running} running' if running >= 0 else ''}"
        counts += f", {totals.tasks - totals.finished - max(running, 0)} left"
    else:
        counts = _amount(totals)
    parts = [f"{totals.stage}: {percent} %, {counts}"]
    if totals.seconds >= _BEGINNING and totals.images_per_second:
        parts.append(_rate(totals.images_per_second))
    if totals.seconds >= _BEGINNING and totals.left_seconds >= 0:
        parts.append(f"about {roughly(totals.left_seconds)} to go")
    return ", ".join([*parts, *([totals.where] if totals.where else [])])


def last_line(totals: Totals) -> str:
    """Return the line of a stage that has ended."""
    failed = f", {totals.failed} failed" if totals.failed else ""
    count = f"{totals.finished - totals.failed} of {totals.tasks} done{failed}" if totals.tasks else _amount(totals)
    speed = f", {_rate(totals.images_per_second)}" if totals.images_per_second else ""
    return f"{totals.stage}: {count}, in {duration(totals.seconds)}{speed}"


def worker_line(seen: Seen, columns: int | None = None) -> str:
    """Return the line of a worker: its task, how far it is, its speed, and where it is.

    columns: a longer line has a shorter name of its task.
    """
    status = seen.status
    if status.epoch:
        far = f"epoch {status.epoch}/{status.epochs}"
    else:
        far = f"{status.done:,.0f}/{status.cost:,.0f} {status.unit}"
    parts = [far]
    if seen.has_ended:
        parts.append("its process has ended")
    elif seen.silent >= SILENCE:
        parts.append(f"no report for {duration(seen.silent)} (one long step, or it hangs, or it was killed)")
    elif status.images and status.seconds > 0:
        parts.append(_rate(status.images / status.seconds))
    parts.append(f"for {duration(status.seconds + (0.0 if seen.has_ended else seen.silent))}")
    told = ", ".join([*parts, f"process {status.process} on {status.node}"])
    room = len(status.name) if columns is None else max(_SHORTEST, columns - len(told) - 5)
    name = status.name if len(status.name) <= room else f"{status.name[: room - 3]}..."
    return f"  {name}: {told}"


def worker_lines(workers: Sequence[Seen], most: int, columns: int | None = None) -> list[str]:
    """Return the lines of workers, at most so many; the last one then counts the others."""
    if len(workers) <= most:
        return [worker_line(seen, columns) for seen in workers]
    shown = [worker_line(seen, columns) for seen in workers[: max(0, most - 1)]]
    return [*shown, f"  and {len(workers) - len(shown)} more"] if most > 0 else []


def _amount(totals: Totals) -> str:
    return f"{totals.done:,.0f} of {totals.total:,.0f} {totals.unit}"


def _rate(images: float) -> str:
    return f"{images:,.0f} images/s" if images >= 10 else f"{images:.1f} images/s"
