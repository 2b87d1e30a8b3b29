"""Named tensors that a method learnt from the training images, in one HDF5 file."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from efface.store.arrays import StoredArray, create_file, open_file, write
from efface.store.atomic import atomic_write
from efface.store.datasets import number_set
from efface.store.locks import locked
from efface.store.sealed import is_whole, read_tensors, write_tensors


def cached_tensors(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors in the file. If there is no file, `make` computes the tensors, and they are written first.

    Other processes wait meanwhile.

    path: the file.
    make: function that computes the tensors.

    ValueError: the file is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):
        if not is_whole(path, path.stem, "its content is computed again"):
            write_tensors(path, path.stem, {name: value.detach().cpu() for name, value in make().items()})
    try:
        return dict(read_tensors(path, path.stem))
    except Exception as error:  # torch raises many types of exceptions for a damaged file
        raise ValueError(
            f"{path}: is damaged ({' '.join(str(error).split())[:200]}); delete it, so that efface computes it again"
        ) from error


def write_learnt(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors atomically, tied to the name of the file. Empty tensors and single numbers are allowed."""
    arrays = {name: np.atleast_1d(np.ascontiguousarray(tensor.numpy(force=True))) for name, tensor in tensors.items()}
    shapes = {f"{name}.shape": list(tensor.shape) for name, tensor in tensors.items()}
    kept = {name: (array.shape, array.dtype) for name, array in arrays.items() if array.size}
    attributes = shapes | {"digest": _digest(arrays), "names": list(arrays)} | _types(arrays)
    attributes["key"] = path.stem
    with atomic_write(path) as temporary:
        create_file(temporary, kept, attributes)
        with temporary.open("r+b", buffering=0) as file:
            for name in kept:
                write(file, StoredArray(temporary, name), 0, arrays[name])


def read_learnt(path: Path) -> dict[str, Tensor]:
    """Return the tensors, on the CPU. ValueError: the file is damaged, or was written under another name."""
    remedy = "delete it and run the extract stage again"
    with open_file(path) as file:
        key = file.attrs.get("key")
        if key != path.stem:
            raise ValueError(
                f"{path}: was written as {key or 'a file without a key'}, so another study learnt its content; {remedy}"
            )
        arrays = {
            str(name): number_set(file, path, name, remedy=remedy)[:]
            if name in file
            else np.zeros(1, file.attrs[f"{name}.type"])[:0]
            for name in file.attrs["names"]
        }
        if _digest(arrays) != file.attrs["digest"]:
            raise ValueError(f"{path}: is damaged (its digest differs); {remedy}")
        shapes = {name: tuple(int(side) for side in file.attrs[f"{name}.shape"]) for name in arrays}
        return {name: torch.from_numpy(array).reshape(shapes[name]) for name, array in arrays.items()}


def learnt_digest(path: Path) -> str:
    """Return the digest of the tensors that is stored in the file."""
    with open_file(path) as file:
        return str(file.attrs["digest"])


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    whole = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        whole.update(f"{name} {array.shape if array.size else 0} {array.dtype}".encode() + array.tobytes())
    return whole.hexdigest()[:16]


def _types(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {f"{name}.type": array.dtype.str for name, array in arrays.items()}
