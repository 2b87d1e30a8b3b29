"""Contiguous HDF5 data sets that are read as memory maps: packed images and maps.

HDF5 stores an unfiltered, contiguous data set as one run of bytes at a known offset. Any HDF5 tool can read the file,
and efface reads it as a memory map: shuffled batches of small rows are about 28 times faster than through h5py. HDF5
creates the layout of the file, but rows are written without HDF5. Its library would crash the process when the disk is
full or a file size limit is reached.
"""

import contextlib
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from efface.base.types import Stored
from efface.store.atomic import atomic_write
from efface.store.datasets import number_set

SAMPLED_ROWS = 4096
"""Largest number of evenly spaced rows that a digest reads, so that files of any size are verified in seconds."""
_METADATA = 1 << 18  # room beside the rows for HDF5's own data (a few KB) and for attributes


class StoredArray:
    """Rows of the data set `name` in the HDF5 file `path`. No file is open before the first read, so it pickles."""

    def __init__(self, path: Path, name: str, file: h5py.File | None = None) -> None:
        """Read the layout of the data set.

        path: HDF5 file.
        name: name of the data set.
        file: the same file, if the caller has it open.

        ValueError: the file has no such data set of numbers, the rows are not contiguous, or the file is too short.
        """
        self.path, self.name = Path(path), name
        with contextlib.nullcontext(file) if file is not None else open_file(self.path) as opened:
            data = number_set(opened, self.path, name, remedy="delete the file")
            self.offset = data.id.get_offset()
            if self.offset is None:
                raise ValueError(f"{path}: '{name}' is chunked or empty, expected contiguous rows; delete the file")
            self.shape, self.dtype = tuple(data.shape), data.dtype
        need = self.offset + math.prod(self.shape) * self.dtype.itemsize
        if self.path.stat().st_size < need:
            raise ValueError(f"{path}: is cut short, {self.path.stat().st_size} of {need} bytes; delete the file")
        self._map: np.memmap | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}

    def numpy(self) -> np.memmap:
        """Return the rows as a read-only array. Access to an element reads it from the file."""
        if self._map is None:
            self._map = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        return self._map

    def release(self) -> None:
        """Release the pages read so far, which count as memory of this process. The next read maps the file again."""
        self._map = None

    def take(self, indices: Int[Tensor, " n"]) -> Tensor:
        """Return the rows of these numbers, in this order, copied into memory."""
        return torch.from_numpy(np.take(self.numpy(), indices.cpu().numpy(), axis=0))


def read_rows(source: Tensor | Stored, indices: Int[Tensor, " n"]) -> Tensor:
    """Return rows by number, from memory or from a file."""
    return source.index_select(0, indices.to(source.device)) if isinstance(source, Tensor) else source.take(indices)


def view_rows(source: Tensor | Stored, indices: Int[Tensor, " n"]) -> Tensor:
    """Return rows by number for reading only: consecutive rows in memory are not copied."""
    if isinstance(source, Tensor) and len(indices):
        first, last = int(indices[0]), int(indices[-1])
        if last - first + 1 == len(indices) and bool((indices.diff() == 1).all()):
            return source[first : last + 1]
    return read_rows(source, indices)


def create_file(
    path: Path, arrays: Mapping[str, tuple[tuple[int, ...], Any]], attributes: Mapping[str, Any] | None = None
) -> None:
    """Create a file with data sets of zeros, and reserve its space on the disk.

    arrays: shape and type of each data set, by name.
    attributes: attributes of the file.

    OSError: the disk has no room, or a limit forbids the size.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    size = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in arrays.values())
    try:
        reserve(path, size + _METADATA)
        with open_file(path, "w") as file:
            for name, (shape, dtype) in arrays.items():
                create(file, name, shape, dtype)
            file.attrs.update(attributes or {})
        reserve(path, path.stat().st_size)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def create(file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any) -> h5py.Dataset:
    """Create a data set for a memory map: its bytes are reserved at once, without chunks, filters or times."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # new bytes of a file are zero anyway
    plist.set_obj_track_times(False)
    space, kind = h5py.h5s.create_simple(shape), h5py.h5t.py_create(np.dtype(dtype))
    h5py.h5d.create(file.id, name.encode(), kind, space, plist)
    return file[name]


def reserve(path: Path, size: int) -> None:
    """Reserve at least `size` bytes of the disk for a file. OSError: there is no room, or a limit forbids the size."""
    with path.open("ab") as file:
        try:
            if file.tell() < size:
                os.ftruncate(file.fileno(), size)
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


def write(file: BinaryIO, stored: StoredArray, first: int, block: np.ndarray) -> None:
    """Write a block over the rows from `first` on. The file is opened for reading and writing, unbuffered."""
    data = np.ascontiguousarray(block, stored.dtype)
    assert data.shape[1:] == stored.shape[1:]
    assert first + len(data) <= len(stored)
    remaining = data.reshape(-1).view(np.uint8).data
    at = stored.offset + first * (data.nbytes // max(1, len(data)))
    while remaining:
        done = os.pwrite(file.fileno(), remaining, at)
        remaining, at = remaining[done:], at + done


@contextlib.contextmanager
def open_file(path: Path, mode: str = "r") -> Iterator[h5py.File]:
    """Open an HDF5 file inside the block. An exception describes a wrong file in one sentence.

    This also holds for damage that becomes visible only while the file is read.

    mode: mode of h5py.File.
    """
    if mode == "r" and not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        # A reader takes no lock, so it can read a file that another process is writing.
        file = h5py.File(path, mode, locking=False if mode == "r" else None)
    except OSError as error:
        if error.errno is not None:  # an error of the system: no permission, no such folder, no room
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise ValueError(f"{path}: not a readable HDF5 file ({error}); delete it and run the stage again") from error
    with file:
        try:
            yield file
        except Exception as error:  # h5py and NumPy raise many types for a wrong file
            if mode != "r" or getattr(error, "errno", None) is not None or str(error).startswith(str(path)):
                raise
            raise ValueError(f"{path}: is damaged ({error}); delete it and run the stage again") from error


def pack(
    path: Path, name: str, shape: tuple[int, ...], blocks: Iterable[np.ndarray], attributes: Mapping[str, Any]
) -> StoredArray:
    """Write blocks of uint8 rows, in order, into a file for `StoredArray`. The file is written atomically.

    The file has the `attributes` and two digests: `digest`, of all bytes, and `sample`, of evenly spaced rows.
    """
    with atomic_write(path) as temporary:
        create_file(temporary, {name: (shape, np.uint8)}, attributes)
        stored = StoredArray(temporary, name)
        whole = _fill(stored, blocks)
        reserve(temporary, temporary.stat().st_size + _METADATA)  # HDF5 cuts off the bytes that it does not need
        with open_file(temporary, "r+") as file:
            file.attrs["digest"] = whole
            file.attrs["sample"] = digest_sample(stored)
    return StoredArray(path, name)


def packed(path: Path, name: str, attributes: Mapping[str, Any]) -> StoredArray | None:
    """Return the packed file, verified by its attributes and the digest of its rows; None if it must be repacked."""
    if not path.exists():
        return None
    with open_file(path) as file:
        if any(file.attrs.get(key) != value for key, value in attributes.items()):
            return None
        sample = file.attrs.get("sample")
    stored = StoredArray(path, name)
    if digest_sample(stored) != sample:
        raise ValueError(
            f"{path}: its rows differ from the packed rows (the digest differs); delete the file to pack them again"
        )
    return stored


def digest(source: Tensor | Stored) -> str:
    """Return the SHA-256 of shape, type and all bytes, 16 digits; for a packed file, the digest that it contains."""
    if isinstance(source, Tensor):
        array = source.numpy(force=True)
    elif isinstance(source, StoredArray):
        with open_file(source.path) as file:
            if "digest" in file.attrs:
                return str(file.attrs["digest"])
        array = source.numpy()
    else:
        array = source.take(torch.arange(source.shape[0])).numpy()
    whole = _start(array.shape, array.dtype)
    whole.update(np.ascontiguousarray(array).data)
    return whole.hexdigest()[:16]


def digest_sample(source: StoredArray) -> str:
    """Return the SHA-256 of at most `SAMPLED_ROWS` evenly spaced rows, 16 digits."""
    count = min(SAMPLED_ROWS, len(source))
    chosen = np.linspace(0, len(source) - 1, count).round().astype(np.int64)
    some = _start(source.shape, source.dtype)
    for first in range(0, count, 256):
        some.update(np.ascontiguousarray(source.numpy()[chosen[first : first + 256]]).data)
    return some.hexdigest()[:16]


def _fill(stored: StoredArray, blocks: Iterable[np.ndarray]) -> str:
    whole, at = _start(stored.shape, stored.dtype), 0
    with stored.path.open("r+b", buffering=0) as file:
        for block in blocks:
            if at + len(block) <= len(stored):
                write(file, stored, at, block)
                whole.update(np.ascontiguousarray(block).data)
            at += len(block)
        os.fsync(file.fileno())
    if at != len(stored):
        raise ValueError(f"{stored.path}: got {at} rows, expected {len(stored)}; run the stage again")
    return whole.hexdigest()[:16]


def _start(shape: tuple[int, ...], dtype: np.dtype) -> "hashlib._Hash":
    return hashlib.sha256(f"{tuple(shape)} {dtype.name} ".encode())
