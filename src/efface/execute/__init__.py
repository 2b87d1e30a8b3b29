"""Executors: they decide where tasks run and how many run at once.

The stage handles failures, progress and threads. An executor can therefore be as short as
`def mine(work, tasks): for task in tasks: yield task, work(task)`.
"""

import warnings
from typing import Any

from efface.execute.attempt import Attempt, Failure, set_torch_defaults
from efface.execute.executor import Executor, runs_at_once, slots
from efface.execute.on_ray import ray
from efface.execute.on_slurm import slurm
from efface.execute.pool import WorkerDiedError, close_all, processes, processors
from efface.execute.progress import Advance, advance, go_on, is_stop, reporting, stoppable
from efface.execute.sequence import serial

__all__ = [
    "Advance",
    "Attempt",
    "Executor",
    "Failure",
    "WorkerDiedError",
    "advance",
    "close_all",
    "go_on",
    "is_stop",
    "processes",
    "processors",
    "ray",
    "reporting",
    "runs_at_once",
    "serial",
    "set_torch_defaults",
    "slots",
    "slurm",
    "stoppable",
]


def __getattr__(name: str) -> Any:
    """Return the object behind a name of efface 0.1. The old name works until efface 0.3."""
    if name != "settle":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    message = f"{__name__}.settle is now {__name__}.set_torch_defaults; the old name works until efface 0.3"
    warnings.warn(message, FutureWarning, stacklevel=2)
    return set_torch_defaults
