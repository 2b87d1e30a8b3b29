"""Append-only JSON lines: one line for each finished probe, with its per-image values in a separate file.

Only the parent process writes. A line is synced before the next probe counts as done. An incomplete last line is
dropped when the file is read; it remains if the machine crashes during the write. A crash therefore costs at most the
probe that is being computed.

Each line has a digest of its fields, and each file of values a seal. A line or a file that was edited or damaged does
not count: its result is computed again. The line goes to `results.jsonl.damaged` with the next write.

`failures.json` has the reason for each task that failed when it was tried last, by the key of its result.
"""

import contextlib
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from efface.base.shown import cut, unprintable
from efface.store.atomic import atomic_write
from efface.store.sealed import is_whole, read_arrays, warn, write_arrays

_LONGEST_TEXT = 10_000
"""Characters of a text in a line."""
_LONGEST_REASON = 1000
"""Characters of the reason for a failure."""
FILE = "results.jsonl"
"""File of a run with a line for each finished probe."""
FAILURES = "failures.json"
"""File of a run with the reasons for its failures."""
_LONGEST_TIME = 1e12
"""Seconds that a line may tell. NaN is refused, too."""


@dataclass(frozen=True)
class Score:
    """The result of a probe: for each name, one value for each image, or one number for all images.

    values: arrays by name, in the order of the rows of the test split. Examples are `accuracy` (bool n: classified as
        the true class), and `probability` and `logit` (float32 n: of the target class). NaN marks images without a
        value.
    """

    values: Mapping[str, np.ndarray]

    @property
    def n(self) -> int:
        """Number of images (or other samples) that have a value."""
        return len(next(iter(self.values.values())))

    def mean(self, name: str) -> float:
        """Return the mean of the values that are not NaN; NaN if there are none."""
        known = self.values[name][~np.isnan(self.values[name])]
        return float(known.mean(dtype=np.float64)) if len(known) else float("nan")


class Results:
    """The lines of `folder/results.jsonl` by key. If a key has several lines, the last one counts."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self._scores = folder, folder / FILE, folder / "scores"
        self.records: dict[str, dict[str, Any]] = {}
        whole, self._damaged = _read_records(self.path)
        for record in whole:
            self.records[record["key"]] = record
        self.failed = _read_failures(folder / FAILURES)
        """One line on why a task failed when it was tried last, by its key."""

    def __contains__(self, key: str) -> bool:
        row = self.records.get(key)
        return row is not None and ("n" not in row or is_whole(self._values(key), key, "its result is computed again"))

    def append(self, row: Mapping[str, Any], score: Score | None = None) -> None:
        """Write a finished probe: first its values, then its line. Both are on the disk when the call returns."""
        line = dict(row)
        if score is not None:
            means = {name: score.mean(name) for name in score.values}
            line |= {name: None if math.isnan(mean) else mean for name, mean in means.items()} | {"n": score.n}
            write_arrays(self._values(row["key"]), row["key"], dict(score.values), synced=True)
        line["digest"] = _digest(line)
        self.set_damaged_aside()
        _cut_torn_line(self.path)
        with self.path.open("ab") as file:
            file.write(json.dumps(line, sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.records[row["key"]] = line
        if self.failed.pop(row["key"], None) is not None:
            self._keep_failures()

    def fail(self, keys: Iterable[str], reason: str) -> None:
        """Keep the reason why these tasks failed. The result of a task removes it.

        reason: its first line is kept, without characters that a page cannot show.
        """
        if new := dict.fromkeys(keys, _one_line(reason)):
            self.failed |= new
            self._keep_failures()

    def _keep_failures(self) -> None:
        with atomic_write(self.folder / FAILURES) as temporary:
            temporary.write_text(json.dumps(self.failed, indent=1), encoding="utf-8")

    def score(self, key: str) -> Score:
        """Return the score of a finished probe with its per-image values."""
        return Score(read_arrays(self._values(key), key))

    def _values(self, key: str) -> Path:
        return self._scores / f"{key}.npz"

    def set_damaged_aside(self) -> None:
        """Move lines that do not count into the file `results.jsonl.damaged`. The caller holds the run's lock."""
        if not self._damaged:
            return
        with self.path.with_name(f"{self.path.name}.damaged").open("ab") as file:
            file.writelines(line + b"\n" for line in self._damaged)
        lines = self.path.read_bytes().split(b"\n")
        with atomic_write(self.path, synced=True) as temporary:
            temporary.write_bytes(b"\n".join(line for line in lines if line not in self._damaged))
        self._damaged = []


def _one_line(text: str) -> str:
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return cut(lines[0])[:_LONGEST_REASON] if lines else "without a message"


def _read_failures(path: Path) -> dict[str, str]:
    """Return the reasons in the file; none if it is not there, or not as efface wrote it."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        tree = json.loads(path.read_bytes())
        return {key: _one_line(text) for key, text in tree.items() if isinstance(text, str)}
    return {}


def _read_records(path: Path) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return the records in the lines of the file, and its damaged lines, which are said on standard error."""
    if not path.exists():
        return [], []
    with path.open("rb") as file:
        lines = (line.removesuffix(b"\n") for line in file if line.endswith(b"\n"))  # the last one may be incomplete
        return _sorted_out(path, lines)


def _sorted_out(path: Path, lines: Iterable[bytes]) -> tuple[list[dict[str, Any]], list[bytes]]:
    records, damaged = [], []
    for number, line in enumerate(lines, 1):
        row: Any = None
        with contextlib.suppress(ValueError, RecursionError):  # not JSON, or not text
            row = json.loads(line, object_pairs_hook=_shared_names)
        if (
            isinstance(row, dict)
            and row.get("digest") == _digest(row)
            and _is_fit(row, is_plain=len(line) <= _LONGEST_TEXT and line.isascii() and b"\\" not in line)
        ):
            records.append(row)
        elif line.strip():
            damaged.append(line)
            warn(
                f"{path}:{number}: is no result line as efface wrote it ({line[:60].decode(errors='replace')!r}); it "
                "does not count; a result that it held is computed again when it is asked for"
            )
    return records, damaged


def _shared_names(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a dict of these fields. Their names, which all lines have, are in memory once."""
    return {sys.intern(name): value for name, value in fields}


def _is_fit(row: Mapping[str, Any], *, is_plain: bool) -> bool:
    """Return whether the fields of a line are of their types, and its texts such that a page can show them.

    is_plain: True if the line is short and has no escape, and no character but those of ASCII. JSON has no bare
        control characters, so its texts can be shown.
    """
    probe, seconds = row.get("probe", {}), row.get("seconds", 0)
    return (
        isinstance(row.get("key"), str)
        and isinstance(row.get("method", ""), str | None)
        and isinstance(row.get("n", 0), int)
        and isinstance(probe, dict)
        and isinstance(probe.get("probe", ""), str)
        and isinstance(seconds, int | float)
        and 0 <= seconds <= _LONGEST_TIME
        and (is_plain or all(len(text) <= _LONGEST_TEXT and not unprintable(text) for text in _texts(row)))
    )


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        yield from tree
        yield from (text for value in tree.values() for text in _texts(value))
    elif isinstance(tree, list):
        yield from (text for item in tree for text in _texts(item))


def _digest(row: Mapping[str, Any]) -> str:
    """Return a digest of the fields of a line."""
    fields = {name: value for name, value in row.items() if name != "digest"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        if not file.seek(0, os.SEEK_END):
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
