"""Sealed files: a ZIP archive, as `torch.save` and `np.savez` write it, with a digest that ties it to its key.

The digest stands in the archive's comment, so other programs read the file as ever. A file that was damaged, cut,
swapped with another or copied from another run does not fit its seal.
"""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from efface.store.atomic import atomic_write

_TAG = b"efface "
_LENGTH = len(_TAG) + 64

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
    status = path.stat()
    state = (status.st_mtime_ns, status.st_size, status.st_ino)
    if _CHECKED.get(path) == (state, key):
        return
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BrokenSealError(f"{path}: cannot be read ({error.strerror})") from error
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
    check_seal(path, key)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # NumPy and zipfile raise many types for a wrong file
        raise BrokenSealError(f"{path}: {_unread(error)}, expected arrays of numbers; delete it") from error
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise BrokenSealError(f"{path}: '{name}' is of type {array.dtype}, expected numbers; delete it")
    return arrays


def _unread(error: Exception) -> str:
    return f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:100]})"


def _seal(body: bytes, key: str) -> bytes:
    return hashlib.sha256(hashlib.sha256(key.encode()).digest() + body).hexdigest().encode()
