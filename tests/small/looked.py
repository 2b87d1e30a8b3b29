"""What a process finds where it is: its environment, streams, signals, limits, modules."""

import faulthandler
import gc
import importlib
import locale
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from efface.execute import fork_server
from efface.execute.worker import start_worker


def found() -> dict[str, object]:
    """All that a process inherits or is told, and the defaults of its libraries."""
    mask = os.umask(0)
    os.umask(mask)
    filters = [(action, str(text), kind.__name__, str(module)) for action, text, kind, module, _ in warnings.filters]
    return {
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "path": sys.path[:],
        "arguments": sys.argv[:],
        "flags": repr(sys.flags),
        "warnings": (sys.warnoptions[:], sorted(filters)),
        "mask": mask,
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in ("RLIMIT_NOFILE", "RLIMIT_CORE")},
        "processors": os.sched_getaffinity(0),
        "nice": os.nice(0),
        "signals": {each: str(signal.getsignal(each)) for each in signal.valid_signals() if each not in _STOPS},
        "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "streams": [(os.fstat(each).st_dev, os.fstat(each).st_ino) for each in range(3)],
        "input": sys.stdin and sys.stdin.name,
        "encoding": (sys.stdout.encoding, sys.stderr.encoding, locale.getpreferredencoding(), locale.setlocale(0)),
        "start": multiprocessing.get_start_method(),
        "main": sys.modules["__main__"].__dict__.get("__file__"),
        "temporary": tempfile.gettempdir(),
        "torch": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "defaults": (torch.get_default_dtype(), torch.is_grad_enabled(), torch.backends.cudnn.deterministic),
        "numpy": np.geterr(),
        "python": (sys.getrecursionlimit(), sys.getswitchinterval(), gc.isenabled(), gc.get_threshold()),
        "faults": faulthandler.is_enabled(),
        "threads": [each.name for each in threading.enumerate()],
        "errors": sys.excepthook is sys.__excepthook__,
        "parent": multiprocessing.parent_process().pid,
    }


_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # their handlers are functions, which differ in their address


def look(_) -> dict[str, object]:
    """As a task that is long enough for each worker to get one."""
    time.sleep(0.3)
    drawn = (random.random(), np.random.random(), torch.rand(1).item())  # noqa: NPY002, S311  what a method may use
    return found() | {"server": os.getppid(), "drawn": drawn, "process": os.getpid()}


def tell(pipe) -> None:
    """As a process of multiprocessing."""
    for name in fork_server.IMPORTED:  # some set filters of warnings
        importlib.import_module(name)
    start_worker(None, 1)
    pipe.send(found())


def value(_) -> int:
    """The number of the study's own module, and this process."""
    import edited

    time.sleep(0.3)
    return edited.NUMBER


def registers(folder) -> None:
    """Leave a function for the orderly end of this process."""
    import atexit

    atexit.register((Path(folder) / str(os.getpid())).touch)
    time.sleep(0.3)
