"""The display of a stage under way: a line for the whole, and on a terminal a line for each worker, on stderr."""

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from efface.execute.lines import Lines
from efface.execute.task_status import Seen, Statuses
from efface.stages.run.live_lines import Totals, last_line, total_line, worker_lines
from efface.stages.run.speed import Speed
from efface.stages.run.terminal import CLEAR, block, is_terminal, size

OFTEN = 0.5
"""Seconds between two looks at the workers."""
_SHARE = 100
"""Many workers are looked at less often: a look takes at most a hundredth of the time."""
_FIRST, _RARELY = 10.0, 30.0
"""Seconds until the first line in a log, and between two lines."""
_LITTLE = 0.01
"""Part of a stage: if the first work that is seen is less, the time before it does not count for the speed."""
_KEPT = 2.0
"""Seconds between two writes for `efface watch`."""


class Display:
    """What is known of a stage while it works. Its functions may be called from any thread."""

    def __init__(
        self, total: float, stage: str, unit: str, tasks: int, folders: Sequence[Path], clock: Callable[[], float]
    ) -> None:
        self.total, self.stage, self.unit, self.tasks = total, stage, unit, tasks
        self.statuses, self._clock, self._began = Statuses(folders), clock, clock()
        self._where = folders[0] if folders else None
        self._ticked = self._finished = self._before = self._done = self._worked = 0.0
        self._count = self._failed = 0
        self._found, self._counters = dict[tuple[str, str], float](), dict[str, float]()
        self._images = 0.0
        self._start_speeds(self._began)

    def _start_speeds(self, now: float) -> None:
        self._speed, self._image_speed = Speed(now, memory=60.0, share=0.5), Speed(now, memory=30.0)

    def update(self, amount: float = 1.0) -> None:
        """Count progress that an executor hands on, or that comes from work without tasks."""
        self._ticked += amount

    def already(self, amount: float) -> None:
        """Count what was there before the stage began. It tells nothing about the speed."""
        self._before += amount

    def finished(self, cost: float, *, failed: bool) -> None:
        """Count a task that came back."""
        self._finished += cost
        self._count += 1
        self._failed += failed

    def look(self) -> tuple[Totals, list[Seen]]:
        """Return what holds now of the stage, and of its workers."""
        now, workers = self._clock(), self.statuses.look()
        running = [seen for seen in workers if seen.is_sure]
        done = self._before + max(self._ticked, self._finished + sum(seen.status.done for seen in running))
        self._done = min(self.total, max(self._done, done))
        self._found |= {(seen.worker, seen.status.name): seen.status.found for seen in running}
        worked = max(self._worked, self._done - self._before - sum(self._found.values()))
        if not self._worked and worked < _LITTLE * self.total:  # until now workers started and read data
            self._start_speeds(now)
        self._speed.add(now, worked - self._worked)
        self._worked = worked
        self._image_speed.add(now, self._new_images(running))
        left = self._speed.seconds_for(self.total - self._done)
        totals = Totals(
            self.stage,
            self.unit,
            self.total,
            self._done,
            self.tasks,
            self._count,
            self._failed,
            len(running) if self._counters else -1,
            self._image_speed.each_second,
            -1.0 if left is None else left,
            now - self._began,
            "" if self._where is None else str(self._where),
        )
        return totals, workers

    def _new_images(self, running: Sequence[Seen]) -> float:
        """Return the images that the workers have worked through since the last look."""
        new = 0.0
        for worker, status in ((seen.worker, seen.status) for seen in running):
            count = status.before + status.images
            new += max(0.0, count - self._counters.get(worker, status.before))
            self._counters[worker] = count
        self._images += new
        return new

    def last(self) -> Totals:
        """Return what holds at the end, with the mean speed."""
        totals, _ = self.look()
        return replace(totals, images_per_second=self._images / totals.seconds if totals.seconds > 0 else 0.0)

    def keep(self, totals: Totals) -> None:
        """Keep the totals for `efface watch`."""
        if self._where is not None:
            totals.keep(self._where)

    def clear(self) -> None:
        """Remove what workers that were killed have left, and what was kept."""
        self.statuses.clear()
        if self._where is not None:
            Totals.forget(self._where)


class Shown:
    """A display on a stream: a block at the bottom of a terminal, or lines in a log."""

    def __init__(self, display: Display, stream: Any, delay: float) -> None:
        self._display, self._stream, self._delay = display, stream, delay
        self._lock, self._over = threading.RLock(), threading.Event()
        self._kept, self._next, self._block = -_KEPT, _FIRST, ""
        self._terminal = is_terminal(stream)
        self._thread = threading.Thread(target=self._run, daemon=True, name="efface-display")

    def begin(self) -> None:
        """Show the display from now on."""
        self._display.clear()
        if self._terminal:
            for name in ("stdout", "stderr"):
                if (real := getattr(sys, name)).isatty():
                    setattr(sys, name, Lines(real, functools.partial(self._above, real)))
        self.refresh()
        self._thread.start()

    def end(self) -> None:
        """Remove the block, give the streams back, and write the last line."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._lock:
            self._put(CLEAR if self._block else "")
            self._block = ""
        for name in ("stdout", "stderr"):
            if isinstance(stream := getattr(sys, name), Lines) and self._terminal:
                stream.finish()
                setattr(sys, name, stream.real)
        if not self._delay:
            self._put(f"{last_line(self._display.last())}\n")
        self._display.clear()

    def _run(self) -> None:
        took = 0.0
        while not self._over.wait(max(OFTEN, _SHARE * took)):
            began = time.monotonic()
            self.refresh()
            took = time.monotonic() - began

    def refresh(self) -> None:
        """Show what holds now."""
        totals, workers = self._display.look()
        if totals.seconds - self._kept >= _KEPT:
            self._kept = totals.seconds
            self._display.keep(totals)
        if totals.seconds < self._delay:
            return
        if self._terminal:
            columns, rows = size(self._stream)
            lines = [total_line(totals), *worker_lines(workers, rows - 3, columns)]
            with self._lock:
                self._block = block(lines, columns)
                self._put(self._block)
        elif totals.seconds >= self._next:
            self._next = totals.seconds + _RARELY
            self._put(f"{total_line(totals)}\n")

    def _above(self, real: Any, text: str) -> None:
        """Print lines of others above the block."""
        with self._lock:
            self._put(CLEAR if self._block else "")
            real.write(text)
            real.flush()
            self._put(self._block)

    def _put(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone, or a method closed the stream
            self._stream.write(text)
            self._stream.flush()


@contextlib.contextmanager
def display(
    total: float,
    stage: str,
    unit: str,
    *,
    tasks: int = 0,
    folders: Sequence[Path] = (),
    delay: float = 0.0,
) -> Iterator[Display]:
    """Show a stage on stderr while the block runs, and a last line after it.

    total: cost of the stage. unit: of the cost, in the plural. tasks: their number; 0: the work is one task.
    folders: where workers write their statuses; the first one also gets the totals, and is named.
    delay: seconds before anything shows. With a delay there is no last line.
    """
    made = Display(total, stage, unit, tasks, folders, time.monotonic)
    shown = Shown(made, sys.stderr, delay)
    try:
        shown.begin()
        yield made
    finally:
        shown.end()
