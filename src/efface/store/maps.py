"""MapStore: the maps of one method on one split, in one HDF5 file that survives kill -9.

The file holds `maps` (float32, contiguous, so it is memory-mapped; or `seeds`, int64, of a ranking that is drawn anew
each epoch; or `images`, float32, that a network made), `targets` (the class each explains, or is to show), `crc` (a
checksum of each row and its target) and `done` (a flag a row). Its attribute `provenance` says what it was made from;
a file made from something else is never read as if it were this one.
"""

import contextlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from efface.store.arrays import SAMPLED_ROWS, StoredArray, create_file, open_file, write
from efface.store.atomic import atomic_write
from efface.store.keys import differences
from efface.types import Maps, Targets

FORMAT = 1


Kind = Literal["maps", "seeds", "images"]


class MapStore:
    """Reader of a finished file: the maps of row numbers, memory-mapped; pickles. The file is opened once.

    provenance, rows: what the maps must have been made from, and how many there must be; None leaves that to `expect`.
    ValueError: the file differs from that, or it is short or damaged. FileNotFoundError: it is not extracted, or not to
    the end.
    """

    def __init__(self, path: Path, provenance: Mapping[str, Any] | None = None, rows: int | None = None) -> None:
        self.path = Path(path)
        if not self.path.exists():
            left = ""
            if (part := partial_path(self.path)).exists():
                left = f"; {part.name} holds {finished_rows(part)}{'' if rows is None else f' of {rows}'} maps"
            raise FileNotFoundError(f"{self.path}: not there{left}; run the extract stage to finish it")
        with open_file(self.path) as file:
            self.provenance = read_provenance(file, self.path)
            self._held = int(file["done"][:].sum()) if "done" in file else 0
            self._error: ValueError | None = None  # a file that was made from something else may be damaged
            try:
                self._read(file)
            except KeyError as error:
                self._error = ValueError(f"{self.path}: is damaged ({error}); delete it and run the stage again")
            except ValueError as error:
                self._error = error
        if provenance is not None and rows is not None:
            self.expect(provenance, rows)

    def _read(self, file: h5py.File) -> None:
        self.kind: Kind = next((kind for kind in get_args(Kind) if kind in file), "maps")
        self.targets = torch.from_numpy(file["targets"][:])
        self._rows, self._sums = (StoredArray(self.path, name, file) for name in (self.kind, "crc"))
        self.shape = self._rows.shape

    def expect(self, provenance: Mapping[str, Any], rows: int) -> None:
        """ValueError: the maps were made from something else, or they are not as many, or they are damaged."""
        if differing := differences(self.provenance, provenance):
            raise ValueError(f"{self.path}: was made from something else: {differing}; run the extract stage again")
        if self._held != rows:
            raise ValueError(
                f"{self.path}: holds {self._held} maps, expected {rows}; delete it and run the extract stage"
            )
        if self._error is not None:
            raise self._error
        if self.shape[0] != rows:
            raise ValueError(f"{self.path}: has {self.shape[0]} rows, expected {rows}; delete it and extract again")

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, rows: Int[Tensor, " n"]) -> Tensor:
        """Maps (or seeds) of these row numbers, in this order, copied into memory."""
        return self._rows.take(rows)

    def release(self) -> None:
        """Let go of the pages read so far: a file read to its end would stay in this process's memory."""
        self._rows.release()

    def verify(self) -> None:
        """Compare rows with their checksums: all of them, or 4,096 evenly spaced ones of a file too large for that."""
        chosen = np.arange(len(self))
        if self.path.stat().st_size > 1 << 32:
            chosen = np.linspace(0, len(self) - 1, SAMPLED_ROWS).round().astype(np.int64)
        expected = self._sums.numpy()
        data, targets = self._rows.numpy(), self.targets.numpy()
        for row in chosen:
            if _checksum(data[row], targets[row]) != expected[row]:
                raise ValueError(
                    f"{self.path}: row {row} is damaged (its checksum differs); delete it and extract again"
                )
        del data
        self._sums.release()
        self.release()


class MapWriter:
    """Writes rows into `<file>.partial`, each flagged once it is there; `close` renames the file once it is whole."""

    def __init__(
        self, path: Path, provenance: Mapping[str, Any], targets: Targets, sample: Tensor, kind: Kind | None = None
    ) -> None:
        """Open what an earlier writer left, or start.

        targets: the class that each row explains; of a row that is still to be written it may change until then.
        sample: one row of what is to come, for its shape.
        kind: "maps", or "seeds" where the sample holds whole numbers, unless given.
        """
        self.path, self.partial = path, partial_path(path)
        kind = kind or ("maps" if sample.is_floating_point() else "seeds")
        shape = (len(targets), *sample.shape)
        with _writing(self.partial):
            if not self._is_resumable(provenance, kind, shape):
                self._start(provenance, kind, shape)
            self.file = self.partial.open("r+b", buffering=0)
        self.data, self.flags, self.crc, self.said = (
            StoredArray(self.partial, name) for name in (kind, "done", "crc", "targets")
        )
        self.targets = targets.numpy(force=True)
        self.done: np.ndarray = self.flags.numpy().astype(bool) & (self.said.numpy() == self.targets)

    def write(self, first: int, rows: Tensor) -> None:
        """Rows from `first` on: the data reach the system before the flags that vouch for them."""
        block = np.ascontiguousarray(rows.numpy(force=True), self.data.dtype)
        sums = np.array([_checksum(*each) for each in zip(block, self.targets[first:], strict=False)], np.uint32)
        with _writing(self.partial):
            write(self.file, self.data, first, block)
            write(self.file, self.said, first, self.targets[first : first + len(block)])
            write(self.file, self.crc, first, sums)
            write(self.file, self.flags, first, np.ones(len(block), np.uint8))
        self.done[first : first + len(block)] = True

    def close(self) -> None:
        """Rename to the final name; only whole files get it."""
        assert self.done.all()
        with _writing(self.partial):
            os.fsync(self.file.fileno())
            self.file.close()
            self.partial.replace(self.path)

    def abandon(self) -> None:
        """Close the file as it is; what it holds is gone on from."""
        self.file.close()

    def _is_resumable(self, provenance: Mapping[str, Any], kind: Kind, shape: tuple[int, ...]) -> bool:
        if not self.partial.exists():
            return False
        try:
            with open_file(self.partial) as file:
                whole = {kind, "done", "crc", "targets"} <= set(file) and file[kind].shape == shape
                return whole and not differences(read_provenance(file, self.partial), provenance)
        except ValueError:  # killed while it was laid out: nothing in it yet
            return False

    def _start(self, provenance: Mapping[str, Any], kind: Kind, shape: tuple[int, ...]) -> None:
        n = shape[0]
        arrays = {
            kind: (shape, np.int64 if kind == "seeds" else np.float32),
            "targets": ((n,), np.int64),
            "crc": ((n,), np.uint32),
            "done": ((n,), np.uint8),
        }
        attributes = {
            "format": FORMAT,
            "provenance": json.dumps(provenance, sort_keys=True),
            "versions": f"torch {torch.__version__}, h5py {h5py.__version__}, numpy {np.__version__}",
        }
        with atomic_write(self.partial) as laid_out:
            create_file(laid_out, arrays, attributes)


def _checksum(row: np.ndarray | np.generic, target: np.integer) -> int:
    """Of a row and of the class that it explains."""
    return zlib.crc32(np.ascontiguousarray(row).data, zlib.crc32(target.tobytes()))


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be written ({error.strerror or error}); make room, raise the limit, or give this study "
            "another folder with out=...: what is finished is kept, the same command goes on from it"
        ) from error


def partial_path(path: Path) -> Path:
    """The name of a file that is not whole yet."""
    return path.with_name(path.name + ".partial")


def finished_rows(path: Path) -> int:
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
            raise ValueError(f"{path}: has format {file.attrs['format']}, this efface reads {FORMAT}; delete it")
        return json.loads(file.attrs["provenance"])
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path}: is no map file of efface (no provenance in it); move it out of the run folder"
        ) from error


def as_rows(maps: Maps) -> Maps:
    """Maps as they are stored: float32, on the CPU."""
    return maps.detach().float().cpu()
