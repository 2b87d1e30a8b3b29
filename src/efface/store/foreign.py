"""Maps made elsewhere: files of arrays, with one map for each image of a split.

A file is .npz, .npy (maps alone) or HDF5 (.h5, .hdf5). It holds these arrays:

maps: n h w or n c h w. Also called `attribution`, `attributions`, or the only array of the file.
targets: the class that each map explains, n. Also called `target`, `label`, `labels`. ViRelAy's `label` of n k, with
    one output of each row that is not 0, is read as the number of that output.
images: for each map the digest of its image (`image_digests`), or the stored images themselves, uint8 n c h w.
index: the row of the split that each map belongs to, n, as in ViRelAy's files.
prediction: the network's answers when the maps were made, n k, as in ViRelAy's files.

The arrays of a split stand at the top, or below `train/` and `test/` (groups of HDF5, names of .npz). Only `maps` is
needed. ViRelAy's layout: https://virelay.readthedocs.io, Database Specification.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from efface.base.types import Stored
from efface.store.datasets import check_own_rows, number_set, own_item
from efface.store.foreign_write import FORMS, check_maps, image_digests, whole_numbers

SPLITS = ("train", "test")
_NAMES = {
    "maps": ("maps", "attribution", "attributions"),
    "targets": ("targets", "target", "label", "labels"),
    "images": ("images",),
    "index": ("index",),
    "prediction": ("prediction", "predictions"),
}


@dataclass(frozen=True)
class ForeignMaps:
    """The arrays of one split in a file.

    name: name of the maps in the file. shape: of the maps. Arrays that the file does not hold are None.
    targets, index: int64 n. digests: of the images, n. prediction: float n k. held: the maps, but for HDF5.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    targets: np.ndarray | None = None
    digests: tuple[str, ...] | None = None
    index: np.ndarray | None = None
    prediction: np.ndarray | None = None
    held: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Tensor:
        """Return the maps of these rows of the file, in this order, as float32. ValueError: a value is not finite."""
        with np.errstate(over="ignore"):
            maps = self._read(rows).astype(np.float32)
        bad = ~np.isfinite(maps).reshape(len(maps), -1).all(1)
        if bad.any():
            raise ValueError(
                f"{self.path}: row {int(rows[bad.argmax()])} holds NaN or infinity, expected finite numbers of 32 bits "
                f"({int(bad.sum())} of {len(rows)} rows read here do); mend these maps"
            )
        return torch.from_numpy(maps)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        if self.held is not None:
            return self.held[rows]
        unique, back = np.unique(rows, return_inverse=True)  # HDF5 reads ascending rows, each once
        with _arrays(self.path) as arrays:
            return np.asarray(arrays[self.name][unique])[back]


def open_maps(path: Path, split: str, *, alone: bool) -> ForeignMaps:
    """Return the arrays of a split in a file, with their shapes checked against one another.

    alone: arrays at the top of the file are this split's.

    FileNotFoundError, ValueError: one sentence with the file, what was found and what was expected.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, expected maps in {', '.join(FORMS)}; correct the path")
    with _arrays(path) as arrays:
        names = _of_split(path, arrays, split, alone=alone)
        where = {kind: _only(path, [names[word] for word in known if word in names]) for kind, known in _NAMES.items()}
        if where["maps"] is None and len(names) == 1:
            where["maps"] = next(iter(names.values()))
        if where["maps"] is None:
            raise ValueError(
                f"{path}: holds {', '.join(names.values()) or 'nothing'}, expected an array 'maps' of n h w or n c h "
                "w; rename it, or write the file by efface.write_maps"
            )
        name = where["maps"]
        if isinstance(arrays, h5py.File):
            own_item(arrays, path, name, remedy="write it anew, by efface.write_maps")
        maps = arrays[name]
        if isinstance(maps, h5py.Group):
            raise ValueError(f"{path}: '{name}' is a group, expected one array of n h w or n c h w; stack the maps")
        if isinstance(maps, h5py.Dataset):
            number_set(arrays, path, name, remedy="write it anew, by efface.write_maps")
        check_maps(path, name, maps.shape, maps.dtype)
        others = {kind: _numbers(path, at, arrays) for kind, at in where.items() if at is not None and kind != "maps"}
    n = maps.shape[0]
    for kind, array in others.items():
        if array.shape[:1] != (n,):
            raise ValueError(
                f"{path}: '{where[kind]}' has shape {array.shape} for {n} maps, expected one for each map; correct it"
            )
    digests, index = others.get("images"), others.get("index")
    return ForeignMaps(
        path,
        name,
        tuple(maps.shape),
        None if "targets" not in others else _classes(path, str(where["targets"]), others["targets"]),
        None if digests is None else _told_digests(path, digests),
        None if index is None else whole_numbers(path, "index", index),
        _answers(path, others["prediction"]) if "prediction" in others else None,
        maps if isinstance(maps, np.ndarray) else None,
    )


def places(maps: ForeignMaps, images: Tensor | Stored) -> np.ndarray:
    """Return the row of the file for each row of a split, by digests, by `index`, or by the order.

    images: uint8 n c h w, of the split. ValueError: an image has no map, or the numbers differ.
    """
    rows, n = images.shape[0], maps.shape[0]
    if maps.digests is not None:
        known: dict[str, list[int]] = {}
        for at, digest in enumerate(maps.digests):
            known.setdefault(digest, []).append(at)
        own = image_digests(images)
        _check_digests(maps, own, known)
        where = [_next(known.get(digest, [])) for digest in own]
        if None in where:
            raise ValueError(
                f"{maps.path}: has no map of image {where.index(None)}: {where.count(None)} of {rows} images have no "
                f"digest among its {n}; were the maps made for other data, another size or another crop?"
            )
        return np.array(where, np.int64)
    if maps.index is not None:
        place = np.full(rows, -1)
        inside = maps.index < rows
        place[maps.index[inside]] = np.arange(n)[inside]
        if (place < 0).any() or not inside.all() or len(np.unique(maps.index)) < n:
            raise ValueError(
                f"{maps.path}: 'index' names {len(np.unique(maps.index[inside]))} of {rows} images in {n} rows, "
                f"expected each row from 0 to {rows - 1} once; write a map for each image"
            )
        return place
    if n != rows:
        raise ValueError(
            f"{maps.path}: {n} maps for {rows} images, expected one for each, in the order of the split's rows; "
            "write the digests of the images beside them (efface.write_maps(path, maps, images=...)) to match rows"
        )
    return np.arange(rows)


def _only(path: Path, names: list[str]) -> str | None:
    """Return the one name, or None. ValueError: two arrays may be meant."""
    if len(names) > 1:
        raise ValueError(
            f"{path}: holds {' and '.join(repr(name) for name in names)}, and each may be meant; leave one of them out"
        )
    return names[0] if names else None


def _check_digests(maps: ForeignMaps, own: Sequence[str], known: Mapping[str, list[int]]) -> None:
    """Raise ValueError if an image has several maps, or if `index` and the digests contradict each other.

    own: digests of the images of the split. known: rows of the file by digest.
    """
    for image, count in Counter(own).items():
        rows = known.get(image, [])
        if len(rows) not in (0, 1, count):
            raise ValueError(
                f"{maps.path}: rows {', '.join(map(str, rows[:5]))} have the digest of one image, which the split has "
                f"{count} times; expected one map for each image"
            )
    if maps.index is not None and maps.digests is not None:
        for row, (at, digest) in enumerate(zip(maps.index, maps.digests, strict=True)):
            if 0 <= at < len(own) and own[at] != digest:
                raise ValueError(
                    f"{maps.path}: row {row} is of image {at} by 'index', but has the digest of another image; leave "
                    "'index' or 'images' out"
                )


def _next(left: list[int]) -> int | None:
    """Return the next map of equal images; the last one serves all that follow."""
    return None if not left else left.pop(0) if len(left) > 1 else left[0]


@contextlib.contextmanager
def _arrays(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the arrays of a file by name. An exception describes a wrong file in one sentence."""
    try:
        if path.suffix.lower() == ".npy":
            yield {"maps": np.load(path, mmap_mode="r", allow_pickle=False)}
        elif path.suffix.lower() == ".npz":
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # NumPy leaves a damaged file open
                yield file
        else:
            with h5py.File(path, "r", locking=False) as file:
                yield file
    except Exception as error:  # h5py, NumPy and zipfile raise many types for a wrong file
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: not readable as {path.suffix} ({error}); write it anew") from error


def _of_split(path: Path, arrays: Mapping[str, Any], split: str, *, alone: bool) -> dict[str, str]:
    """Return the full names of a split's arrays, by the names that they have within the split."""
    by_split: dict[str, dict[str, str]] = {}
    for name in arrays:
        group, slash, rest = name.partition("/")  # of .npz
        if group in SPLITS and slash:
            by_split.setdefault(group, {})[rest] = name
        elif name in SPLITS and path.suffix.lower() != ".npz" and isinstance(arrays[name], h5py.Group):
            by_split[name] = {inner: f"{name}/{inner}" for inner in arrays[name]}
    if not by_split:
        if not alone:
            raise ValueError(
                f"{path}: its arrays are those of the test images, but a metric needs the maps of the {split} images, "
                "too; give a file for each, file: {train: a.npz, test: b.npz}, or put them below train/ and test/"
            )
        return {name: name for name in arrays}
    if split not in by_split:
        raise ValueError(
            f"{path}: holds maps of {', '.join(by_split)}, expected {split}, too; write them below {split}/"
        )
    return by_split[split]


def _numbers(path: Path, name: str, arrays: Mapping[str, Any]) -> np.ndarray:
    """Return a small array of numbers or digests, read whole."""
    remedy = "write it anew, by efface.write_maps"
    if isinstance(arrays, h5py.File):
        own_item(arrays, path, name, remedy=remedy)
    item = arrays[name]
    if isinstance(item, h5py.Group):
        raise ValueError(f"{path}: '{name}' is a group, expected one array with a row for each map; stack them")
    if isinstance(item, h5py.Dataset):
        check_own_rows(item, path, name, remedy=remedy)
    if item.dtype.kind not in "fiubSU":
        raise ValueError(f"{path}: '{name}' is of type {item.dtype}, expected numbers; convert it")
    values = item[()]
    if isinstance(values, h5py.Empty):
        raise ValueError(f"{path}: '{name}' is empty, expected a row for each map; {remedy}")
    return np.asarray(values)


def _classes(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    if values.ndim == 2 and values.shape[1] == 1:
        return whole_numbers(path, name, values[:, 0])
    if values.ndim == 2 and values.dtype.kind in "fiub":
        several = (values != 0).sum(1) != 1
        if several.any():
            row = int(several.argmax())
            raise ValueError(
                f"{path}: row {row} of '{name}' has {int((values[row] != 0).sum())} outputs that are not 0, expected "
                "one: efface measures maps of one class; leave this array out, or make maps of one class"
            )
        return (values != 0).argmax(1)
    return whole_numbers(path, name, values)


def _answers(path: Path, array: np.ndarray) -> np.ndarray | None:
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ValueError(f"{path}: 'prediction' has shape {array.shape} of {array.dtype}, expected finite numbers n k")
    return array if array.shape[1] > 1 else None  # one output: its class needs a threshold that the file does not tell


def _told_digests(path: Path, images: np.ndarray) -> tuple[str, ...]:
    if images.dtype.kind in "SU" and images.ndim == 1:
        return tuple(
            digest.decode("ascii", "replace") if isinstance(digest, bytes) else str(digest) for digest in images
        )
    if images.ndim == 4:
        return image_digests(images)
    raise ValueError(
        f"{path}: 'images' has shape {images.shape} of {images.dtype}, expected n digests (efface.write_maps), or the "
        "images, uint8 n c h w"
    )
