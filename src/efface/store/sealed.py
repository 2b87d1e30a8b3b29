"""Sealed files: a ZIP archive, as `torch.save` and `np.savez` write it, with a digest that ties it to its key.

The digest stands in the archive's comment, so other programs read the file as ever. A file that was damaged, cut,
swapped with another or copied from another run does not fit its seal.
"""

import functools
import hashlib
import io
import math
import os
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from efface.store.atomic import atomic_write

_TAG = b"efface "
_LENGTH = len(_TAG) + 64

_LENGTHS, _TO_LENGTHS, _LOCAL_HEADER = struct.Struct("<HH"), 26, 30
"""Of the header before each member of an archive: where it has the lengths of its name and of what follows it."""
_PREFIX = 10
"""Bytes of NumPy's format before the text of the header; the last two have its length."""

_CHECKED: dict[Path, tuple[tuple[int, int, int], str]] = {}
"""Files that fitted their seal, each with its state (time, size, number) and key at that moment."""


class BrokenSealError(ValueError):
    """A file does not fit its seal. The message names the file."""


def write_sealed(path: Path, key: str, write: Callable[[Path], object], *, synced: bool = False) -> None:
    """Write a file atomically, and seal it.

    key: what the file's content depends on.
    write: function that writes a ZIP archive without a comment to the path that it gets.
    synced: True to have it on the disk when the call returns.
    """
    with atomic_write(path, synced=synced) as temporary:
        write(temporary)
        content = temporary.read_bytes()
        if content[-22:-18] != b"PK\x05\x06" or content[-2:] != b"\0\0":
            raise ValueError(f"{path}: is no ZIP archive; expected what torch.save or np.savez writes")
        body = content[:-2] + _LENGTH.to_bytes(2, "little")
        with temporary.open("r+b") as file:
            file.seek(len(content) - 2)
            file.write(body[-2:] + _TAG + _seal(body, key))


def check_seal(path: Path, key: str) -> None:
    """Raise BrokenSealError if the file does not fit the key; FileNotFoundError if there is none.

    A file that has not changed since the last check is not read again.
    """
    state = _state(path)
    if _CHECKED.get(path) != (state, key):
        _check(path, key, state, _read(path))


def _state(path: Path) -> tuple[int, int, int]:
    status = os.stat(path)  # noqa: PTH116  a report asks this of 100,000 files
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BrokenSealError(f"{path}: cannot be read ({error.strerror})") from error


def _check(path: Path, key: str, state: tuple[int, int, int], content: bytes) -> None:
    body, tag, seal = content[:-_LENGTH], content[-_LENGTH:-64], content[-64:]
    if len(content) < _LENGTH or tag != _TAG:
        raise BrokenSealError(f"{path}: has no seal of efface; it is damaged, or another program wrote it")
    if seal != _seal(body, key):
        raise BrokenSealError(f"{path}: does not fit its seal; it is damaged, or it belongs to another key or run")
    _CHECKED[path] = (state, key)


def is_whole(path: Path, key: str, remedy: str) -> bool:
    """Return True if the file is there and fits its key. A file that does not fit is set aside, with a line on stderr.

    remedy: what efface does now, for that line.
    """
    try:
        check_seal(path, key)
    except FileNotFoundError:
        return False
    except BrokenSealError as error:
        warn(f"{error}; {remedy} (the file is set aside as {set_aside(path).name})")
        return False
    return True


def warn(message: str) -> None:
    """Print a line about a file of the run on standard error."""
    sys.stderr.write(f"efface: {message}\n")


def set_aside(path: Path) -> Path:
    """Rename a file or folder that cannot be used, so that nothing is lost, and return its new path."""
    number = 1
    while (other := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(other)
    return other


def write_tensors(path: Path, key: str, tensors: Any, *, synced: bool = False) -> None:
    """Write what `torch.save` takes, sealed."""
    write_sealed(path, key, lambda temporary: torch.save(tensors, temporary), synced=synced)


def read_tensors(path: Path, key: str, device: torch.device | str = "cpu") -> Any:
    """Return the plain tensors of a sealed file. BrokenSealError: it does not fit its key."""
    check_seal(path, key)
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many types for a wrong file
        raise BrokenSealError(f"{path}: {_unread(error)}, expected plain tensors; delete it") from error


def write_arrays(path: Path, key: str, arrays: dict[str, np.ndarray], *, synced: bool = False) -> None:
    """Write arrays by name, sealed."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    write_sealed(path, key, write, synced=synced)


def read_arrays(path: Path, key: str) -> dict[str, np.ndarray]:
    """Return the arrays of a sealed file. BrokenSealError: it does not fit its key."""
    state, content = _state(path), _read(path)
    if _CHECKED.get(path) != (state, key):
        _check(path, key, state, content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            arrays = {each.filename.removesuffix(".npy"): _array(content, each) for each in archive.infolist()}
    except Exception as error:  # NumPy and zipfile raise many types for a wrong file
        raise BrokenSealError(f"{path}: {_unread(error)}, expected arrays of numbers; delete it") from error
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise BrokenSealError(f"{path}: '{name}' is of type {array.dtype}, expected numbers; delete it")
    return arrays


def _array(content: bytes, member: zipfile.ZipInfo) -> np.ndarray:
    """Return an array of an archive as `np.savez` writes it. NumPy's own reader takes three times as long.

    ValueError: the member is compressed, or has more or fewer bytes than its header says.
    """
    name, extra = _LENGTHS.unpack_from(content, member.header_offset + _TO_LENGTHS)
    start = member.header_offset + _LOCAL_HEADER + name + extra
    stream = io.BytesIO(content[start : start + _PREFIX])
    if member.compress_type != zipfile.ZIP_STORED or np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an array is compressed, or of another version of NumPy's format")
    begin = start + _PREFIX + int.from_bytes(content[start + _PREFIX - 2 : start + _PREFIX], "little")
    shape, in_columns, dtype = _header(content[start + _PREFIX - 2 : begin])
    count, size = math.prod(shape), start + member.file_size - begin
    if dtype.hasobject or count * dtype.itemsize != size:
        raise ValueError(f"an array of shape {shape} and type {dtype} has {size} bytes")
    return np.frombuffer(content, dtype, count, begin).reshape(shape, order="F" if in_columns else "C").copy("K")


@functools.lru_cache(maxsize=256)
def _header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, order and type in the header of an array, which many files share."""
    return np.lib.format.read_array_header_1_0(io.BytesIO(header))


def _unread(error: Exception) -> str:
    return f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:100]})"


def _seal(body: bytes, key: str) -> bytes:
    return hashlib.sha256(hashlib.sha256(key.encode()).digest() + body).hexdigest().encode()
