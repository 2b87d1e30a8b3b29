"""MapStore: the maps of one method on one split, in one HDF5 file that survives kill -9.

The file holds `maps` (float32, contiguous, so it is memory-mapped; or `seeds`, int64, of a ranking that is drawn anew
each epoch), `targets` (the class each map explains), `crc` and `done` (a checksum and a flag a row). Its attribute
`provenance` says what it was made from; a file made from something else is never read as if it were this one.
"""

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from efface.rows import SAMPLED_ROWS, Rows, create, open_file
from efface.types import Maps, Targets

FORMAT = 1
Kind = Literal["maps", "seeds"]


class MapStore:
    """Reader of a finished file: the maps of row numbers, memory-mapped; pickles.

    provenance: what the maps must have been made from. ValueError: it differs, or the file is short or damaged.
    FileNotFoundError: not extracted, or not to the end.
    """

    def __init__(self, path: Path, provenance: Mapping[str, Any], rows: int) -> None:
        self.path = Path(path)
        if not self.path.exists():
            left = ""
            if (part := partial(self.path)).exists():
                left = f"; {part.name} holds {finished(part)} of {rows} maps"
            raise FileNotFoundError(f"{self.path}: not there{left}; run the extract stage to finish it")
        with open_file(self.path) as file:
            found = read_provenance(file, self.path)
            if differing := differences(found, provenance):
                raise ValueError(f"{self.path}: was made from something else: {differing}; run the extract stage again")
            if "done" not in file or len(file["done"]) != rows or not file["done"][:].all():
                held = int(file["done"][:].sum()) if "done" in file else 0
                raise ValueError(
                    f"{self.path}: holds {held} maps, expected {rows}; delete it and run the extract stage"
                )
            self.kind: Kind = "seeds" if "seeds" in file else "maps"
            self.targets = torch.from_numpy(file["targets"][:])
        self._rows = Rows(self.path, self.kind)
        if self._rows.shape[0] != rows:
            raise ValueError(
                f"{self.path}: has {self._rows.shape[0]} rows, expected {rows}; delete it and extract again"
            )
        self.shape = self._rows.shape

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, rows: Int[Tensor, " n"]) -> Tensor:
        """Maps (or seeds) of these row numbers, in this order, copied into memory."""
        return self._rows.take(rows)

    def verify(self) -> None:
        """Compare rows with their checksums: all of them, or 4,096 evenly spaced ones of a file too large for that."""
        chosen = np.arange(len(self))
        if self.path.stat().st_size > 1 << 32:
            chosen = np.linspace(0, len(self) - 1, SAMPLED_ROWS).round().astype(np.int64)
        with open_file(self.path) as file:
            expected = file["crc"][:]
        data = self._rows.numpy()
        for row in chosen:
            if zlib.crc32(np.ascontiguousarray(data[row]).data) != expected[row]:
                raise ValueError(
                    f"{self.path}: row {row} is damaged (its checksum differs); delete it and extract again"
                )


class MapWriter:
    """Writes rows into `<file>.partial`, each flagged once it is there; `close` renames the file once it is whole."""

    def __init__(self, path: Path, provenance: Mapping[str, Any], targets: Targets, sample: Tensor) -> None:
        """Open what an earlier writer left, or start. sample: one row of what is to come, for its shape and kind."""
        self.path, self.partial = path, partial(path)
        kind = "maps" if sample.is_floating_point() else "seeds"
        shape = (len(targets), *sample.shape)
        self.file = self._resume(provenance, kind, shape) or self._start(provenance, targets, kind, shape)
        self.data, self.flags, self.crc = self.file[kind], self.file["done"], self.file["crc"]
        self.done: np.ndarray = self.flags[:].astype(bool)

    def write(self, first: int, rows: Tensor) -> None:
        """Rows from `first` on: the data reach the system before the flags that vouch for them."""
        block = np.ascontiguousarray(rows.numpy(force=True).astype(self.data.dtype))
        part = slice(first, first + len(block))
        self.data[part] = block
        self.crc[part] = [zlib.crc32(row.data) for row in block.reshape(len(block), -1)]
        self.file.flush()
        self.flags[part] = 1
        self.file.flush()
        self.done[part] = True

    def close(self) -> None:
        """Rename to the final name; only whole files get it."""
        assert self.done.all()
        self.file.close()
        with self.partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self.partial, self.path)

    def abandon(self) -> None:
        """Close the file as it is; what it holds is gone on from."""
        with contextlib.suppress(Exception):  # the disk may be full, and the first error is the one to report
            self.file.close()

    def _resume(self, provenance: Mapping[str, Any], kind: Kind, shape: tuple[int, ...]) -> h5py.File | None:
        if not self.partial.exists():
            return None
        try:
            file = open_file(self.partial, "r+")
        except ValueError:  # killed before its first flush: nothing in it yet
            return None
        whole = {kind, "done", "crc", "targets"} <= set(file) and "whole" in file.attrs
        if whole and not differences(read_provenance(file, self.partial), provenance) and file[kind].shape == shape:
            return file
        file.close()
        return None

    def _start(self, provenance: Mapping[str, Any], targets: Targets, kind: Kind, shape: tuple[int, ...]) -> h5py.File:
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        file = h5py.File(self.partial, "w")
        try:
            create(file, kind, shape, np.float32 if kind == "maps" else np.int64)
            create(file, "targets", (shape[0],), np.int64)[:] = targets.numpy(force=True)
            create(file, "crc", (shape[0],), np.uint32)
            create(file, "done", (shape[0],), np.uint8)
            file.attrs["format"] = FORMAT
            file.attrs["provenance"] = json.dumps(provenance, sort_keys=True)
            file.attrs["versions"] = f"torch {torch.__version__}, h5py {h5py.__version__}, numpy {np.__version__}"
            file.attrs["whole"] = True  # everything but the rows is there
            file.flush()
        except BaseException:
            file.close()
            raise
        return file


def partial(path: Path) -> Path:
    """The name of a file that is not whole yet."""
    return path.with_name(path.name + ".partial")


def finished(path: Path) -> int:
    """How many rows an unfinished file holds; 0 where it cannot be read (yet)."""
    try:
        with open_file(path) as file:
            return int(file["done"][:].sum()) if "done" in file else 0
    except (ValueError, OSError, KeyError):
        return 0


def read_provenance(file: h5py.File, path: Path) -> dict[str, Any]:
    """What a map file says it was made from; ValueError where it says nothing."""
    try:
        if file.attrs["format"] != FORMAT:
            raise ValueError(f"{path}: has format {file.attrs['format']}, this efface reads {FORMAT}; extract again")
        return json.loads(file.attrs["provenance"])
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path}: is no map file of efface (no provenance in it); move it out of the run folder"
        ) from error


def key(provenance: Mapping[str, Any]) -> str:
    """SHA-256 of a provenance, 16 digits."""
    return hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:16]


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """In words, what two provenances disagree on; empty where they agree."""
    return ", ".join(_flat_differences(dict(found), dict(expected)))


def _flat_differences(found: dict[str, Any], expected: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name in dict.fromkeys([*expected, *found]):
        here, there = found.get(name), expected.get(name)
        if isinstance(here, dict) and isinstance(there, dict):
            yield from _flat_differences(here, there, f"{prefix}{name}.")
        elif here != there:
            yield f"{prefix}{name} is {json.dumps(here)}, expected {json.dumps(there)}"


def as_rows(maps: Maps) -> Maps:
    """Maps as they are stored: float32, on the CPU."""
    return maps.detach().float().cpu()
