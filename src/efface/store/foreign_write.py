"""Writing of maps that were made elsewhere, and digests of the images that they belong to."""

import hashlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from efface.base.types import Stored
from efface.store.atomic import atomic_write

FORMS = (".npz", ".npy", ".h5", ".hdf5")
"""Endings of the files of such maps."""


def write_maps(path: str | Path, maps: Any, targets: Any = None, images: Any = None) -> Path:
    """Write maps that were made elsewhere into a file for `attribution_methods: [{name: theirs, file: PATH}]`.

    path: .npz, .h5 or .hdf5; .npy for maps alone. An earlier file is replaced.
    maps: array or tensor of numbers, n h w or n c h w, in the order of the split's rows.
    targets: the class that each map explains, n whole numbers; None: not told, so efface cannot check them.
    images: the images that the maps belong to, n c h w, uint8 as the data set stores them, or floats in [0, 1] that are
        255ths. The file then holds a digest of each, and efface finds the row of each map by it. None: not told.

    Returns the path. ValueError: shapes, numbers or the name do not fit.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMS:
        raise ValueError(f"{path}: ends with '{path.suffix}', expected {', '.join(FORMS)}; give it another name")
    arrays = {"maps": _array(maps)}
    check_maps(path, "maps", arrays["maps"].shape, arrays["maps"].dtype)
    arrays["maps"] = arrays["maps"].astype(np.float32, copy=False)
    finite = np.isfinite(arrays["maps"]).reshape(len(arrays["maps"]), -1).all(1)
    if not finite.all():
        raise ValueError(f"{path}: row {int((~finite).argmax())} of the maps holds NaN or infinity; mend it")
    if targets is not None:
        arrays["targets"] = whole_numbers(path, "targets", _array(targets))
    if images is not None:
        arrays["images"] = np.array(image_digests(images), "S16")
    for name, array in arrays.items():
        if len(array) != len(arrays["maps"]):
            raise ValueError(f"{path}: {len(array)} {name} for {len(arrays['maps'])} maps, expected one for each map")
    if path.suffix.lower() == ".npy" and len(arrays) > 1:
        raise ValueError(f"{path}: a .npy file holds the maps alone; write .npz or .h5 to keep targets and images")
    _write(path, arrays)
    return path


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic_write(path) as temporary:
        if path.suffix.lower() == ".npy":
            with temporary.open("wb") as file:
                np.save(file, arrays["maps"])
        elif path.suffix.lower() == ".npz":
            with temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]  # of names, none is allow_pickle
        else:
            with h5py.File(temporary, "w") as file:
                for name, array in arrays.items():
                    file[name] = array


def image_digests(images: Tensor | Stored | np.ndarray) -> tuple[str, ...]:
    """Return the SHA-256 of each image's shape and bytes, 16 digits. Images are n c h w.

    They are uint8, or floats in [0, 1] that are 255ths, as efface hands them to a method.
    """
    n = images.shape[0]
    if len(images.shape) != 4:
        raise ValueError(f"images: shape {tuple(images.shape)}, expected n c h w; give them all at once")
    digests = []
    for first in range(0, n, 1024):
        indices = torch.arange(first, min(n, first + 1024))
        part = (
            images.take(indices)
            if not isinstance(images, Tensor | np.ndarray)
            else images[first : first + len(indices)]
        )
        digests += [_digest(image) for image in _stored(_array(part))]
    return tuple(digests)


def check_maps(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise ValueError if an array cannot be maps."""
    if dtype.kind not in "fiu":
        raise ValueError(f"{path}: '{name}' is of type {dtype}, expected numbers; convert it")
    if len(shape) not in (3, 4) or 0 in shape:
        raise ValueError(f"{path}: '{name}' has shape {tuple(shape)}, expected n h w or n c h w; reshape it")


def whole_numbers(path: Path, name: str, found: np.ndarray) -> np.ndarray:
    """Return n whole numbers from 0 as int64. ValueError: they are something else."""
    if found.ndim != 1 or found.dtype.kind not in "fiu":
        raise ValueError(f"{path}: '{name}' has shape {found.shape} of {found.dtype}, expected n whole numbers from 0")
    wrong = ~((found >= 0) & (found == np.floor(found)) & (found < 2**53))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{path}: row {row} of '{name}' is {found[row]}, expected a whole number from 0; correct it")
    return found.astype(np.int64)


def _stored(images: np.ndarray) -> np.ndarray:
    if images.dtype == np.uint8:
        return images
    levels = np.rint(images * 255.0) if images.dtype.kind == "f" else images * np.nan
    if not (np.abs(levels - images * 255.0) < 1e-2).all() or levels.min() < 0 or levels.max() > 255:
        raise ValueError(
            f"images: {images.dtype}, expected uint8 as the data set stores them, or floats in [0, 1] that are 255ths, "
            "without normalisation"
        )
    return levels.astype(np.uint8)


def _digest(image: np.ndarray) -> str:
    return hashlib.sha256(f"{image.shape} ".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()[:16]


def _array(values: Any) -> np.ndarray:
    return values.numpy(force=True) if isinstance(values, Tensor) else np.asarray(values)
