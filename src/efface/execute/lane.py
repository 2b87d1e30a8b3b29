"""A lane: a process of a batch system that works through the tasks of a folder, one after another."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from efface.execute.attempt import set_torch_defaults
from efface.execute.elsewhere import Place, answer
from efface.execute.own_signals import STOPS
from efface.execute.progress import stop_at_signals
from efface.execute.task_folder import Beating, TaskFolder, Watched
from efface.execute.worker import leave

_kill = os.kill  # a call of a method watches the name while it runs
_PATIENCE = 10.0
"""Seconds that a task has to end after its run has ended."""
_SIGNALS = (*STOPS, *(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)))
"""What a batch system sends before it ends a job."""


@dataclass(frozen=True)
class Lane:
    """The work of one job. Calling it works through tasks until none is open, or none fits into the job's time.

    folder: folder of the tasks.
    name: name of this lane, which no other has.
    place: where the program works.
    threads: threads of torch.
    seconds: how long tasks may run, from the start of the job.
    task_seconds: the longest time of a task so far.
    most: largest number of tasks; None: any.
    driver: process that gave the tasks, if the lane may run in it.
    """

    folder: Path
    name: str
    place: Place
    threads: int
    seconds: float
    task_seconds: float = 0.0
    most: int | None = None
    driver: int | None = None

    def __call__(self) -> int:
        """Return how many tasks were finished. A signal lets the task at work go, and is no error."""
        began, tasks = time.monotonic(), TaskFolder(self.folder)
        if os.getpid() == self.driver:
            return self._worked(tasks, began)
        stop_at_signals(lambda: True, _SIGNALS)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        try:
            with _living(tasks, self.name):
                self.place.enter()
                set_torch_defaults(self.threads)
                return self._worked(tasks, began)
        except KeyboardInterrupt:
            return 0

    def _worked(self, tasks: TaskFolder, began: float) -> int:
        work, longest, count = tasks.work(), self.task_seconds, 0
        while self.most is None or count < self.most:
            left = self.seconds - (time.monotonic() - began)
            if count and left < longest:
                break
            number = tasks.claim(self.name)
            if number is None:
                break
            started = time.monotonic()
            try:
                answered = answer(work, tasks.task(number))
            except KeyboardInterrupt:
                for each in _SIGNALS if os.getpid() != self.driver else ():
                    signal.signal(each, signal.SIG_IGN)  # a batch system may send several
                tasks.let_go(number, self.name)
                raise
            seconds = time.monotonic() - started
            tasks.finish(number, answered, seconds)
            longest, count = max(longest, seconds), count + 1
        return count


@contextlib.contextmanager
def _living(tasks: TaskFolder, name: str) -> Iterator[None]:
    """Show signs of life inside the block, and stop the task if the run has ended."""
    driver, ended = Watched(tasks.life("driver")), list[float]()

    def look() -> None:
        if driver.lives() and not driver.has_gone():
            return
        ended.append(time.monotonic())
        if len(ended) == 1:
            _kill(os.getpid(), signal.SIGTERM)
        elif ended[-1] - ended[0] > _PATIENCE:
            tasks.life(name).unlink(missing_ok=True)
            leave(0)

    beating = Beating(tasks.life(name), look)
    try:
        yield
    finally:
        beating.stop()
