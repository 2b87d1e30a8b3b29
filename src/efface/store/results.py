"""Append-only JSON lines: one finished probe a line, with its per-image values in a file beside.

Only the parent process writes. A line is synced before the next probe counts as done, and a torn last line (the
machine died while it was written) is dropped on reading, so the worst that a crash costs is the probe under way.
"""

import contextlib
import fcntl
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from efface.store.atomic import atomic_write


@dataclass(frozen=True)
class Score:
    """What a probe yields: by name, a value of each image, or one number of all of them.

    values: such as `accuracy` (bool n: classified as the true class), `probability` and `logit` (float32 n: of the
        class in question), by row of the test split. NaN where an image has no value.
    """

    values: Mapping[str, np.ndarray]

    @property
    def n(self) -> int:
        """How many images (or other samples) the values are of."""
        return len(next(iter(self.values.values())))

    def mean(self, name: str) -> float:
        """Mean of the values that are there; NaN if none is."""
        found = self.values[name][~np.isnan(self.values[name])]
        return float(found.mean(dtype=np.float64)) if len(found) else float("nan")


class Results:
    """The lines of `folder/results.jsonl` by key, the last one of a key counting."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "results.jsonl"
        self.rows: dict[str, dict[str, Any]] = {}
        for row in _whole_rows(self.path):
            self.rows[row["key"]] = row

    def __contains__(self, key: str) -> bool:
        return key in self.rows and ("n" not in self.rows[key] or self._values(key).exists())

    def append(self, row: Mapping[str, Any], score: Score | None = None) -> None:
        """One finished probe: its values first, then its line, each on the disk before the call returns."""
        line = dict(row)
        if score is not None:
            means = {name: score.mean(name) for name in score.values}
            line |= {name: None if math.isnan(mean) else mean for name, mean in means.items()} | {"n": score.n}
            buffer = io.BytesIO()
            np.savez(buffer, **dict(score.values))  # type: ignore[arg-type]
            with atomic_write(self._values(row["key"]), synced=True) as temporary:
                temporary.write_bytes(buffer.getvalue())
        _cut_torn_line(self.path)
        with self.path.open("ab") as file:
            file.write(json.dumps(line, sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows[row["key"]] = line

    def score(self, key: str) -> Score:
        """A finished probe's score with its per-image values."""
        with np.load(self._values(key)) as values:
            return Score({name: values[name] for name in values.files})

    def _values(self, key: str) -> Path:
        return self.folder / "scores" / f"{key}.npz"


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a run folder for one process at a time; ValueError where another has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ValueError(
                f"{folder}: another efface (process {file.read() or '?'}) is at work there; "
                "wait for it, or give this study another folder with out=..."
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):  # what follows the last end is torn
        try:
            row = json.loads(line)
        except ValueError:  # no JSON, or no text
            row = None
        if not isinstance(row, dict) or "key" not in row:
            raise ValueError(
                f"{path}:{number}: is no result line ({line[:60].decode(errors='replace')!r}); the file was edited or "
                "damaged: delete that line, what it stood for is computed again"
            )
        rows.append(row)
    return rows


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        text = file.read()
        if text and not text.endswith(b"\n"):
            file.truncate(text.rfind(b"\n") + 1)
