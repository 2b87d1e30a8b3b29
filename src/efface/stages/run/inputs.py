"""Checks of what the study's data and model calls return."""

import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from efface.base.types import Split
from efface.models.adapt import Outputs
from efface.plug.call import Call
from efface.store.arrays import StoredArray, digest, pack, packed, read_rows
from efface.store.keys import key


def call_checked(where: str, call: Call) -> Any:
    """Return the result of a call of the study. An unexpected error becomes a ValueError that names the place."""
    try:
        return call()
    except (ValueError, OSError):
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(
            f"{where}: {call.call} fails: {type(error).__name__}: {error} ({last.filename}:{last.lineno})"
        ) from error


def checked_data(call: Call, splits: Any) -> dict[str, Split]:
    """Return the splits of a data call. ValueError: they are not a dict of Split with uint8 images."""
    if not isinstance(splits, dict) or "test" not in splits or not all(isinstance(s, Split) for s in splits.values()):
        raise ValueError(
            f"data: {call.call} returned no dict of Split with a 'test' in it; see efface.base.types.Split"
        )
    for name, split in splits.items():
        _check_targets(f"data: {call.call}, split '{name}'", split.targets)
        if len(split.images.shape) != 4 or split.images.shape[0] != len(split.targets):
            raise ValueError(
                f"data: {call.call}, split '{name}': images have shape {tuple(split.images.shape)} for "
                f"{len(split.targets)} targets, expected n c h w and n targets"
            )
        if isinstance(split.images, Tensor) and split.images.dtype != torch.uint8:
            raise ValueError(
                f"data: {call.call}, split '{name}': images are {split.images.dtype}, expected uint8 (0 to 255)"
            )
        _check_range(f"data: {call.call}, split '{name}'", split)
    return splits


LOOKED_AT = 64
"""Images of a split whose values are looked at."""


def _check_range(where: str, split: Split) -> None:
    """Raise ValueError if there are no images, or if they are black or nearly so, as values from 0 to 1 are."""
    count = len(split.targets)
    if not count:
        raise ValueError(f"{where}: has no images; expected one or more")
    indices = torch.linspace(0, count - 1, min(count, LOOKED_AT)).round().long()
    most = int(read_rows(split.images, indices).max())
    if most <= 1:
        raise ValueError(
            f"{where}: the largest value in {len(indices)} images is {most} of 255, so these images are black; "
            "if their values run from 0 to 1, multiply them by 255"
        )


def _check_targets(where: str, targets: Any) -> None:
    """Raise ValueError if targets are not one class number of at least 0 for each image."""
    if not isinstance(targets, Tensor):
        raise ValueError(
            f"{where}: targets are a {type(targets).__name__}; expected a tensor of class numbers, int64 n"
        )
    if targets.ndim != 1:
        raise ValueError(
            f"{where}: targets have shape {tuple(targets.shape)}; expected one class number for each image (n). "
            "Several labels for an image are not supported, because a map explains one class: make a data set for each "
            "label"
        )
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ValueError(f"{where}: targets are {targets.dtype}; expected integers from 0: use targets.long()")
    if (targets < 0).any():
        row = int((targets < 0).nonzero()[0, 0])
        raise ValueError(
            f"{where}: {int((targets < 0).sum())} targets are below 0 (the first is row {row}: {int(targets[row])}); "
            "expected class numbers from 0: leave images without a label out"
        )


def place_split(split: Split, budget: float, device: torch.device, folder: Path, name: str) -> Split:
    """Return the split with its images on the device if they fit, else in a packed file in the folder.

    budget: bytes that the images may take on the device. There may be less memory.
    """
    if int(np.prod(split.images.shape)) <= budget:
        images = split.images if isinstance(split.images, Tensor) else split.images.take(torch.arange(len(split)))
        with suppress(torch.OutOfMemoryError):
            return replace(split, images=images.to(device))
    if isinstance(split.images, Tensor):
        return replace(split, images=_packed(split.images, folder, name))
    return split


def split_digest(split: Split) -> str:
    """Return a digest of images, targets, masks and validation rows."""
    parts = {"images": digest(split.images), "targets": digest(split.targets)}
    if split.masks is not None:
        parts["masks"] = digest(split.masks)
    if split.validation is not None:
        parts["validation"] = digest(split.validation)
    return key(parts)


def check_classes(logits: Tensor, split: Split, name: str, outputs: Outputs | None = None) -> None:
    """Raise ValueError if a network has fewer classes than the data. outputs: the study's key."""
    classes = int(split.targets.max()) + 1
    if logits.ndim != 2 or logits.shape[1] < classes:
        count = logits.shape[1] if logits.ndim == 2 else tuple(logits.shape[1:])
        remedy = f"set model.kwargs.num_classes={classes}"
        if outputs == "binary" or (outputs == "probabilities" and count == 2):
            remedy = f"outputs: {outputs} stands in the study; a network with one output has two classes"
        raise ValueError(f"model: gives {count} classes, but the {name} data have {classes}; {remedy}")


def _packed(images: Tensor, folder: Path, name: str) -> StoredArray:
    mark = {"images": digest(images)}
    path = folder / f"{name}-{mark['images']}.h5"
    return packed(path, "images", mark) or pack(
        path, "images", tuple(images.shape), (block.numpy(force=True) for block in images.split(1024)), mark
    )
