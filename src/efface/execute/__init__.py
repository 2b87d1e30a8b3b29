"""Executors: they decide where tasks run and how many run at once; failures, progress and threads are the stage's.

An executor of three lines works: `def mine(work, tasks): for task in tasks: yield task, work(task)`.
"""

from efface.execute.attempt import Attempt, Failure, set_torch_defaults
from efface.execute.contract import Executor, runs_at_once, slots
from efface.execute.pool import close_all, processes
from efface.execute.progress import Advance, advance, go_on, reporting, stoppable
from efface.execute.sequence import serial

__all__ = [
    "Advance",
    "Attempt",
    "Executor",
    "Failure",
    "advance",
    "close_all",
    "go_on",
    "processes",
    "reporting",
    "runs_at_once",
    "serial",
    "set_torch_defaults",
    "slots",
    "stoppable",
]
