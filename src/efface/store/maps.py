"""MapStore: the maps of one method on one split, in one HDF5 file that survives kill -9.

The file contains these data sets:

maps: maps, float32, contiguous, so that they can be memory-mapped. Other files have one of two data sets instead:
    `seeds`, int64, of a ranking that is drawn anew in each epoch; or `images`, float32, that a network generated.
targets: the class that each row explains or shall show.
crc: a checksum of each row and its target.
done: a flag for each row, 1 for a row that is written.

Its attribute `provenance` contains everything that the rows were computed from. A file with another provenance is never
used in place of this one. Before another file takes its place, it moves to the folder `kept`. Its name there has its
key.
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

from efface.base.types import Targets
from efface.store.arrays import SAMPLED_ROWS, StoredArray, create_file, open_file, write
from efface.store.atomic import atomic_write
from efface.store.datasets import number_set
from efface.store.keys import differences, key
from efface.store.own_file import OwnFile

FORMAT = 1

Kind = Literal["maps", "seeds", "images"]
_TYPES = {"maps": np.float32, "seeds": np.int64, "images": np.float32}
_COLUMNS = {"targets": np.int64, "crc": np.uint32, "done": np.uint8}


class MapStore:
    """Reader of a finished file. It returns maps by row number, memory-mapped. It pickles. The file is opened once.

    provenance: provenance that the file must have; None: `expect` checks it later.
    rows: number of maps that the file must have; None: `expect` checks it later.

    ValueError: the file differs from these, or it is too short or damaged.
    FileNotFoundError: the extraction has not started, or it has not finished.
    """

    def __init__(self, path: Path, provenance: Mapping[str, Any] | None = None, rows: int | None = None) -> None:
        self.path = Path(path)
        if not self.path.exists():
            partly = ""
            if (part := partial_path(self.path)).exists():
                partly = f"; {part.name} holds {finished_rows(part)}{'' if rows is None else f' of {rows}'} maps"
            raise FileNotFoundError(f"{self.path}: does not exist{partly}; run the extract stage to finish it")
        with open_file(self.path) as file:
            self.provenance = read_provenance(file, self.path)
            self._finished, self.shape = 0, (0,)
            self._error: ValueError | None = None  # raised by `expect`, which reports another provenance first
            try:
                self._finished = int(_column(file, self.path, "done")[:].sum())
                self._read(file)
            except ValueError as error:
                self._error = error
            except Exception as error:  # noqa: BLE001  h5py and NumPy raise many types for a wrong file
                self._error = ValueError(f"{self.path}: is damaged ({error}); delete it and run the stage again")
        if provenance is not None and rows is not None:
            self.expect(provenance, rows)

    def _read(self, file: h5py.File) -> None:
        self.kind: Kind = next((kind for kind in get_args(Kind) if kind in file), "maps")
        _rows_of(file, self.path, self.kind)
        self.targets = torch.from_numpy(_column(file, self.path, "targets")[:])
        _column(file, self.path, "crc")
        self._rows, self._sums = (StoredArray(self.path, name, file) for name in (self.kind, "crc"))
        self.shape = self._rows.shape

    def expect(self, provenance: Mapping[str, Any], rows: int) -> None:
        """Raise ValueError if the maps have another provenance or number, or if they are damaged."""
        if differing := differences(self.provenance, provenance):
            raise ValueError(
                f"{self.path}: was made from other inputs or settings: {differing}; run the extract stage again"
            )
        if self._error is not None and self._finished in (0, rows):
            raise self._error
        if self._finished != rows:
            raise ValueError(
                f"{self.path}: holds {self._finished} maps, expected {rows}; delete it and run the extract stage"
            )
        for shape in (self.shape, self.targets.shape, self._sums.shape):
            if shape[0] != rows:
                raise ValueError(f"{self.path}: has {shape[0]} rows, expected {rows}; delete it and extract again")

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, indices: Int[Tensor, " n"]) -> Tensor:
        """Return the maps (or seeds) of these row numbers, in this order, copied into memory."""
        return self._rows.take(indices)

    def release(self) -> None:
        """Release the pages read so far. Otherwise a whole file would stay in the memory of this process."""
        self._rows.release()

    def verify(self) -> None:
        """Compare rows with their checksums: all rows, or 4,096 evenly spaced rows of a file above 4 GB."""
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


def verify_once(store: MapStore, stamps: Path) -> None:
    """Verify a file of maps unless it was verified and is unchanged since, by its time of writing and its size.

    stamps: JSON file that holds what was verified. ValueError: a row is damaged.
    """
    status, known, name = store.path.stat(), _verified(stamps), os.path.relpath(store.path, stamps.parent)
    stamp = [status.st_mtime_ns, status.st_size]
    if known.get(name) == stamp:
        return
    store.verify()
    known = {file: held for file, held in known.items() if (stamps.parent / file).exists()} | {name: stamp}
    with contextlib.suppress(OSError), atomic_write(stamps) as temporary:  # else it is verified again
        temporary.write_text(json.dumps(known, indent=0, sort_keys=True), encoding="utf-8")


def _verified(path: Path) -> dict[str, Any]:
    """Return what was verified, by file name; nothing from a file that is not there or damaged."""
    try:
        verified = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return verified if isinstance(verified, dict) else {}


class MapWriter:
    """Writer of rows into `<file>.partial`. Each written row gets a flag. `close` renames the finished file."""

    def __init__(
        self, path: Path, provenance: Mapping[str, Any], targets: Targets, sample: Tensor, kind: Kind | None = None
    ) -> None:
        """Open the partial file of an earlier writer, or create a new one.

        path: path of the finished file.
        provenance: everything that the rows are computed from.
        targets: the class that each row explains. It may change until the row is written.
        sample: one row, for shape and type.
        kind: kind of the rows; None: "seeds" if the sample holds whole numbers, else "maps".
        """
        self.path, self.partial, self._provenance = path, partial_path(path), provenance
        kind = kind or ("maps" if sample.is_floating_point() else "seeds")
        shape = (len(targets), *sample.shape)
        with _writing(self.partial):
            if not self._is_resumable(provenance, kind, shape):
                move_to_kept(self.partial, provenance)
                if (kept := partial_path(kept_path(path, provenance))).exists():
                    kept.replace(self.partial)
            if not self._is_resumable(provenance, kind, shape):
                self._start(provenance, kind, shape)
            self.file = OwnFile(self.partial)
        self.data, self.flags, self.crc, self.stored_targets = (
            StoredArray(self.partial, name) for name in (kind, "done", "crc", "targets")
        )
        self.targets = targets.numpy(force=True)
        self.done: np.ndarray = self.flags.numpy().astype(bool) & (self.stored_targets.numpy() == self.targets)

    def write(self, first: int, rows: Tensor) -> None:
        """Write rows from `first` on. The data are written before their flags."""
        block = np.ascontiguousarray(rows.numpy(force=True), self.data.dtype)
        sums = np.array([_checksum(*pair) for pair in zip(block, self.targets[first:], strict=False)], np.uint32)
        with _writing(self.partial):
            file = self.file.checked()
            write(file, self.data, first, block)
            write(file, self.stored_targets, first, self.targets[first : first + len(block)])
            write(file, self.crc, first, sums)
            write(file, self.flags, first, np.ones(len(block), np.uint8))
        self.done[first : first + len(block)] = True

    def close(self) -> None:
        """Rename the file to its final name. All rows must be written."""
        assert self.done.all()
        with _writing(self.partial):
            self.file.finish()
            move_to_kept(self.path, self._provenance)
            self.partial.replace(self.path)

    def abandon(self) -> None:
        """Close the partial file. The next writer continues it."""
        self.file.abandon()

    def _is_resumable(self, provenance: Mapping[str, Any], kind: Kind, shape: tuple[int, ...]) -> bool:
        if not self.partial.exists():
            return False
        try:
            with open_file(self.partial) as file:
                fits = {_rows_of(file, self.partial, kind).shape == shape}
                fits |= {_column(file, self.partial, name).shape == shape[:1] for name in _COLUMNS}
                return fits == {True} and not differences(read_provenance(file, self.partial), provenance)
        except ValueError:  # the process was killed while it created the file, so the file has no rows yet
            return False

    def _start(self, provenance: Mapping[str, Any], kind: Kind, shape: tuple[int, ...]) -> None:
        n = shape[0]
        arrays = {kind: (shape, _TYPES[kind])} | {name: ((n,), dtype) for name, dtype in _COLUMNS.items()}
        attributes = {
            "format": FORMAT,
            "provenance": json.dumps(provenance, sort_keys=True),
            "versions": f"torch {torch.__version__}, h5py {h5py.__version__}, numpy {np.__version__}",
        }
        with atomic_write(self.partial) as laid_out:
            create_file(laid_out, arrays, attributes)


def _rows_of(file: h5py.File, path: Path, kind: Kind) -> h5py.Dataset:
    """Return the data set of the maps, seeds or images. ValueError: it is no such data set."""
    return number_set(file, path, kind, dtype=_TYPES[kind], ranks=range(1, 2) if kind == "seeds" else range(2, 5))


def _column(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    """Return a data set with a number for each row. ValueError: it is no such data set."""
    return number_set(file, path, name, dtype=_COLUMNS[name], ranks=(1,))


def _checksum(row: np.ndarray | np.generic, target: np.integer) -> int:
    """Return the checksum of a row and of the class that it explains."""
    return zlib.crc32(np.ascontiguousarray(row).data, zlib.crc32(target.tobytes()))


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be written ({error.strerror or error}); make room, raise the limit, or give this study "
            "another folder with out=...: finished rows are kept, and the same command continues from them"
        ) from error


def partial_path(path: Path) -> Path:
    """Return the path of the unfinished file."""
    return path.with_name(path.name + ".partial")


def kept_path(path: Path, provenance: Mapping[str, Any]) -> Path:
    """Return the path of a file with this provenance while another file has its place."""
    return path.parent / "kept" / f"{path.stem}-{key(provenance)}.h5"


def move_to_kept(path: Path, provenance: Mapping[str, Any]) -> None:
    """Move a file, finished or not, to the folder `kept`, unless it has this provenance or is no map file."""
    finished = path.with_name(path.name.removesuffix(".partial"))
    try:
        with open_file(path) as file:
            held = read_provenance(file, path)
    except (ValueError, OSError):  # it does not exist, or the process was killed while it created the file
        return
    if not differences(held, provenance):
        return
    kept = kept_path(finished, held)
    kept.parent.mkdir(exist_ok=True)
    path.replace(kept if path == finished else partial_path(kept))


def finished_rows(path: Path) -> int:
    """Return the number of rows in an unfinished file; 0 if it cannot be read (yet)."""
    try:
        with open_file(path) as file:
            return int(_column(file, path, "done")[:].sum())
    except (ValueError, OSError):
        return 0


def read_provenance(file: h5py.File, path: Path) -> dict[str, Any]:
    """Return the provenance of a map file. ValueError: it has none, or it has another format."""
    number = file.attrs.get("format")
    if isinstance(number, int | np.integer) and number != FORMAT:
        raise ValueError(f"{path}: has format {number}, but this version of efface reads {FORMAT}; delete the file")
    provenance = None
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):  # not JSON, or not text
        provenance = json.loads(file.attrs["provenance"])
    if number is None or not isinstance(provenance, dict):
        raise ValueError(f"{path}: is not a map file of efface (it has no provenance); move it out of the run folder")
    return provenance
