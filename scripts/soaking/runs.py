"""Small studies, and commands of efface in processes of their own, with what they said and how they ended."""

import atexit
import contextlib
import csv
import hashlib
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from efface.__main__ import command

METHODS: list[dict[str, Any]] = [
    {"name": "random", "method": "random"},
    {"name": "gradient", "method": "gradient"},
    {"name": "smooth", "method": "smooth_grad", "kwargs": {"samples": 4}},
]
PATTERN: dict[str, Any] = {"name": "pattern", "method": "efface.methods.pattern.PatternNet"}
STUDY: dict[str, Any] = {
    "out": "run",
    "data": {"call": "digits", "kwargs": {"limit": 120, "test_limit": 30}},
    "model": {"call": "resnet8", "kwargs": {"num_classes": 10, "in_channels": 1}},
    "fit": {"epochs": 3, "batch_size": 32},
    "attribution_methods": METHODS,
    "post": ["absolute", "channel_sum"],
    "metrics": ["morf", "roar"],
    "fractions": [0.3, 0.7],
    "repeats": 1,
    "max_batch": 32,
    "executor": "serial",
}
TWO_WORKERS = {"call": "processes", "kwargs": {"workers": 2}}
TABLES = ("summary.csv", "comparisons.csv", "agreement.csv")
PATIENCE = 15.0
"""Seconds after a kill in which the processes of a run must have ended."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    code: its exit status, negative for a signal; None: it did not end in time and was killed.
    """

    code: int | None
    said: str
    errors: str
    seconds: float
    gigabytes: float = 0.0

    @property
    def traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.said + self.errors

    @property
    def last(self) -> str:
        """The last line of the errors that is no progress bar."""
        lines = [line for line in self.errors.replace("\r", "\n").splitlines() if line.strip() and "|" not in line]
        return " ".join(lines[-1].split())[:300] if lines else ""


class Command:
    """`efface WORDS` in a folder, as a session of its own.

    plain: whether a new Python starts it, which takes seconds. Otherwise it is a fork of this process, which has
        imported torch before.
    before: what the fork does first.
    """

    def __init__(self, folder: Path, *words: str, plain: bool = False, before: Callable[[], Any] | None = None) -> None:
        self.began, self.folder = time.monotonic(), folder
        self.files = [folder / f".{stream}" for stream in ("said", "errors", "memory")]
        task = _new_python if plain else _fork
        self.process = multiprocessing.get_context("fork").Process(
            target=task, args=(folder, words, self.files, before)
        )
        self.process.start()

    @property
    def pid(self) -> int:
        return self.process.pid or 0

    def wait(self, seconds: float) -> Ended:
        """How it ended; after so many seconds the whole session is killed."""
        self.process.join(seconds)
        code, took = self.process.exitcode, time.monotonic() - self.began
        if code is None:
            strike(living(self.pid), signal.SIGKILL)
            self.process.join()
        said, errors, memory = (each.read_text(errors="replace") if each.exists() else "" for each in self.files)
        for each in self.files:
            each.unlink(missing_ok=True)
        return Ended(code, said, errors, took, float(memory or 0) / 1e6)


def efface(folder: Path, *words: str, seconds: float, before: Callable[[], Any] | None = None) -> Ended:
    """How `efface WORDS` ended in this folder."""
    return Command(folder, *words, before=before).wait(seconds)


def _lead(folder: Path, files: list[Path]) -> None:
    os.setsid()
    os.chdir(folder)
    sys.dont_write_bytecode = True
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_DFL)
    for stream, path in zip((sys.stdout, sys.stderr), files, strict=False):
        with path.open("w") as file:
            os.dup2(file.fileno(), stream.fileno())


def _fork(folder: Path, words: tuple[str, ...], files: list[Path], before: Callable[[], Any] | None) -> None:
    _lead(folder, files)
    code = 0
    try:
        if before is not None:
            before()
        command(words)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # noqa: BLE001  a traceback is what a soak looks for
        traceback.print_exc()
        code = 70
    files[2].write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
    # the end of an interpreter, in its order: threads and pools first, which a process of multiprocessing ends last
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # a method may have closed or removed it
            stream.flush()
    os._exit(code)


def _new_python(folder: Path, words: tuple[str, ...], files: list[Path], _: Callable[[], Any] | None) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    _lead(folder, files)
    os.execve(sys.executable, [sys.executable, "-m", "efface", *words], environment)  # noqa: S606


def warm() -> None:
    """Import what a first command imports, so that each fork need not."""
    import importlib

    os.environ["OMP_NUM_THREADS"] = "1"  # and no thread of this process is lost in a fork
    for name in (
        *(
            "torch._dynamo",
            "scipy.stats",
            "efface.stages.page.report_data",
            "sklearn.datasets",
            "matplotlib.backends.backend_pdf",
            "matplotlib.backends.backend_svg",
        ),
        *("efface.stages.all", "efface.stages.check", "efface.stages.status", "efface.stages.compare"),
        *("efface.methods.smooth", "efface.methods.gradient", "efface.methods.control", "efface.methods.pattern"),
        *("efface.models.resnet", "efface.models.small", "efface.metrics.roar", "efface.metrics.morf"),
        *("efface.data.digits", "efface.data.patches", "efface.erase.post", "efface.impute.channel_mean"),
    ):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def living(session: int) -> list[int]:
    """The processes of a session that live; a zombie does not."""
    found = []
    for each in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = each.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append(int(each.parent.name))
    return found


def strike(processes: list[int], sign: int) -> None:
    """Send a signal to each of these processes that still lives."""
    for each in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, sign)


def orphans(session: int) -> list[int]:
    """The processes of a session that still live when PATIENCE is over; they are killed."""
    until = time.monotonic() + PATIENCE
    while (left := living(session)) and time.monotonic() < until:
        time.sleep(0.02)
    strike(left, signal.SIGKILL)
    return left


def fresh(folder: Path) -> Path:
    """This folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_study(folder: Path, **changes: Any) -> Path:
    """Write the small study with these keys changed; None removes a key."""
    path = folder / "study.yml"
    tree = {key: value for key, value in (STUDY | changes).items() if value is not None}
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def tables(run: Path) -> dict[str, list[list[str]]]:
    """The rows of each table of the report; a missing table has none."""
    found = {}
    for name in TABLES:
        path = run / "report" / name
        found[name] = list(csv.reader(path.open())) if path.is_file() else []
    return found


def numbers(run: Path) -> dict[str, str]:
    """Digests of all that a run found: tables, scores of each image, maps and the network's weights."""
    found = {name: _digest([repr(rows).encode()]) for name, rows in tables(run).items()}
    for path in sorted(run.glob("scores/*.npz")):
        with np.load(path) as file:
            found[f"scores/{path.name}"] = _digest(_arrays(file))
    for path in sorted(run.glob("maps/*.h5")):
        found[f"maps/{path.name}"] = maps_digest(path)
    return found


def maps_digest(path: Path) -> str:
    """A digest of the arrays of a file of maps."""
    with h5py.File(path) as file:
        return _digest(_arrays({name: each[()] for name, each in file.items() if isinstance(each, h5py.Dataset)}))


def _arrays(named: Mapping[str, np.ndarray]) -> Iterator[bytes]:
    for name in sorted(named):
        array = np.asarray(named[name])
        yield f"{name} {array.dtype.str} {array.shape}".encode()
        yield array.tobytes()


def _digest(pieces: Any) -> str:
    digest = hashlib.sha256()
    for each in pieces:
        digest.update(each)
    return digest.hexdigest()[:16]


def different(found: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """The names whose digest is missing or another; further names of `found` do not count."""
    return [name for name, digest in expected.items() if found.get(name) != digest]
