"""Data sets of an HDF5 file that are safe to read: numbers of the expected type and rank, that lie in this file.

HDF5 can also hold texts, objects and references, and links to other files. Read as plain rows, they would end the
process, or show the content of a file that the run does not own.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import h5py

_NUMBERS = (h5py.h5t.INTEGER, h5py.h5t.FLOAT)
_KINDS = {
    h5py.h5t.STRING: "texts",
    h5py.h5t.BITFIELD: "bit fields",
    h5py.h5t.OPAQUE: "opaque bytes",
    h5py.h5t.COMPOUND: "compound values",
    h5py.h5t.REFERENCE: "references",
    h5py.h5t.ENUM: "named values",
    h5py.h5t.VLEN: "rows of varying length",
    h5py.h5t.ARRAY: "arrays in each element",
}


def number_set(
    file: h5py.File,
    path: Path,
    name: str,
    *,
    dtype: Any = None,
    ranks: Collection[int] = (),
    remedy: str = "delete the file and run the stage again",
) -> h5py.Dataset:
    """Return the data set of this name. ValueError: the file has none, or it is not one of numbers in this file.

    dtype: the type that it must have; None: any real number. ranks: the numbers of axes that it may have; empty: any.
    remedy: what to do about a wrong file.
    """
    dataset = own_item(file, path, name, remedy=remedy)
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{path}: '{name}' is no data set, expected rows of numbers; {remedy}")
    check_own_rows(dataset, path, name, remedy=remedy)
    kind = dataset.id.get_type().get_class()
    if kind not in _NUMBERS:
        what = f"{_KINDS.get(kind, 'another kind')} ({_type_of(dataset)})"
        raise ValueError(f"{path}: '{name}' holds {what}, expected numbers; {remedy}")
    if dtype is not None and dataset.dtype != dtype:
        raise ValueError(f"{path}: '{name}' is of type {dataset.dtype}, expected {dtype}; {remedy}")
    if dataset.shape is None:
        raise ValueError(f"{path}: '{name}' is empty, expected rows of numbers; {remedy}")
    if ranks and dataset.ndim not in ranks:
        axes = " or ".join(map(str, sorted(ranks)))
        raise ValueError(f"{path}: '{name}' has shape {dataset.shape}, expected {axes} axes; {remedy}")
    return dataset


def own_item(file: h5py.Group, path: Path, name: str, *, remedy: str) -> Any:
    """Return an item of a file by its name, such as `train/maps`. ValueError: there is none, or a link leads to it."""
    at: Any = file
    for part in name.split("/"):
        link = at.get(part, getlink=True) if isinstance(at, h5py.Group) else None
        if link is None:
            names = ", ".join(file) or "nothing"
            raise ValueError(f"{path}: is damaged, or of another kind: contains no '{name}', only {names}; {remedy}")
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{path}: '{name}' is a link to another place, expected the data themselves; {remedy}")
        at = at[part]
    return at


def check_own_rows(found: h5py.Dataset, path: Path, name: str, *, remedy: str) -> None:
    """Raise ValueError if the values of a data set lie in another file."""
    if found.is_virtual or found.external:
        raise ValueError(f"{path}: the values of '{name}' lie in another file, expected them in this one; {remedy}")


def _type_of(dataset: h5py.Dataset) -> str:
    try:
        return str(dataset.dtype)
    except TypeError:  # NumPy has no such type
        return "unknown to NumPy"
