"""Images and classes as Python code has them, as the splits of a study: 8 bits, n c h w."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from efface.base.shown import shown
from efface.base.types import Split, StoredImages, Targets
from efface.data.decode import Reader

_GREY_OR_RGB = (1, 3)
_EXACT = 1e-3
"""Largest distance, in levels of 255, between a float image and its 8 bits that is taken for a rounding error."""


def split_of(
    images: Any,
    labels: Any = None,
    *,
    where: str = "images",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Split:
    """Return images and their classes as a split.

    images: a tensor n c h w, an array n h w, n c h w or n h w c, a list of PIL images or of single tensors, a Dataset
        of (image, class), or a DataLoader of batches of them. Numbers are uint8, or floats in [0, 1]. With `mean` and
        `std`, floats outside [0, 1] are taken as normalised by them.
    labels: the class of each image, n whole numbers; None: the Dataset or DataLoader gives them.
    where: the name of the images in messages.
    mean, std: of the normalisation, one number for each channel; None: the images are in [0, 1].

    ValueError: shapes, types or values do not fit.
    """
    if labels is None:
        images, labels = _pairs(images, where)
    stored, exact = _stored(_stacked(images, where), where, mean, std)
    targets = _classes(labels, where)
    if len(targets) != len(stored):
        raise ValueError(f"{where}: {len(stored)} images, but {len(targets)} labels; give one label for each image")
    notes = () if exact else (f"{where}: floats were rounded to 8 bits, which is how efface stores images",)
    return Split(stored, targets, notes=notes)


def _pairs(images: Any, where: str) -> tuple[Any, Any]:
    """Return the images and classes of a Dataset or a DataLoader."""
    is_loader = isinstance(images, torch.utils.data.DataLoader)
    if not is_loader and not (hasattr(images, "__getitem__") and hasattr(images, "__len__")):
        raise ValueError(
            f"{where}: labels are missing, and {_kind(images)} does not give them; hand over labels, or a Dataset or "
            "DataLoader of (image, label)"
        )
    if isinstance(images, Tensor | np.ndarray):
        raise ValueError(f"{where}: labels are missing; hand over the class of each of the {len(images)} images")
    items: Iterable[Any] = images if is_loader else (images[row] for row in range(len(images)))
    pictures, classes = [], []
    for number, item in enumerate(items):
        if not isinstance(item, list | tuple) or len(item) < 2:
            raise ValueError(
                f"{where}: item {number} is {_kind(item)}; expected a pair (image, label). Hand over images and labels "
                "themselves if the data set has another form"
            )
        pictures.append(item[0])
        classes.append(item[1])
    if not pictures:
        raise ValueError(f"{where}: has no images; expected one or more")
    if is_loader:
        return torch.cat([_stacked(batch, where) for batch in pictures]), np.concatenate(list(map(_numbers, classes)))
    return pictures, [_numbers(one).item() if _numbers(one).size == 1 else one for one in classes]


def _stacked(images: Any, where: str) -> Tensor:
    """Return the images as one tensor n c h w, of the type that they had."""
    if isinstance(images, Tensor):
        batch = images.detach().cpu()
    elif isinstance(images, np.ndarray):
        batch = torch.from_numpy(np.ascontiguousarray(_channels_first(images, where)))
    elif isinstance(images, list | tuple) and images:
        singles = [_single(image, f"{where}[{row}]") for row, image in enumerate(images)]
        if len({(one.shape, one.dtype) for one in singles}) > 1:
            row = next(
                row for row, one in enumerate(singles) if one.shape != singles[0].shape or one.dtype != singles[0].dtype
            )
            raise ValueError(
                f"{where}: image 0 has shape {tuple(singles[0].shape)} and type {singles[0].dtype}, image {row} "
                f"{tuple(singles[row].shape)} and {singles[row].dtype}; give all images one size and type"
            )
        batch = torch.stack(singles)
    else:
        raise ValueError(
            f"{where}: is {_kind(images)}; expected a tensor n c h w, an array, a list of PIL images, a Dataset or a "
            "DataLoader"
        )
    if batch.ndim == 3:
        batch = batch[:, None]
    if batch.ndim != 4:
        raise ValueError(f"{where}: shape {tuple(batch.shape)}, expected n c h w")
    return batch


def _single(image: Any, where: str) -> Tensor:
    """Return one image as c h w."""
    if isinstance(image, Image.Image):
        return _of_picture(image, where)
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(np.ascontiguousarray(_channels_first(image[None], where)[0]))
    if isinstance(image, Tensor) and image.ndim in (2, 3):
        return image.detach().cpu() if image.ndim == 3 else image.detach().cpu()[None]
    raise ValueError(f"{where}: is {_kind(image)}; expected a PIL image, or a tensor or array of one image (c h w)")


def _of_picture(image: Image.Image, where: str) -> Tensor:
    if image.mode == "L":
        return torch.from_numpy(np.array(image))[None]
    if image.mode == "F" or image.mode.startswith("I"):
        raise ValueError(f"{where}: mode {image.mode} does not say which value is white; convert it to L or RGB")
    picture = Reader().of_picture(where, image)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _channels_first(array: np.ndarray, where: str) -> np.ndarray:
    """Return an array n h w c as n c h w; one of three axes is n h w. ValueError: both are possible."""
    if array.dtype == object or array.ndim not in (3, 4):
        raise ValueError(f"{where}: array of {array.dtype}, shape {array.shape}; expected numbers, n h w c or n c h w")
    if array.ndim == 3:
        return array[:, None]
    first, last = array.shape[1] in _GREY_OR_RGB, array.shape[3] in _GREY_OR_RGB
    if (first and last) or (not first and not last and array.shape[1] == array.shape[3]):
        raise ValueError(
            f"{where}: shape {array.shape} may be n c h w or n h w c; hand over a torch tensor, which is n c h w"
        )
    return array.transpose(0, 3, 1, 2) if last else array


def _stored(
    images: Tensor, where: str, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[StoredImages, bool]:
    """Return the images in 8 bits, and whether they had them before."""
    if images.dtype == torch.uint8:
        return images.contiguous(), True
    if not images.is_floating_point():
        raise ValueError(f"{where}: numbers of type {images.dtype}, expected uint8 (0 to 255) or floats in [0, 1]")
    values = images.double()
    if not values.isfinite().all():
        row = int((~values.flatten(1).isfinite().all(1)).nonzero()[0, 0])
        raise ValueError(f"{where}: image {row} holds NaN or infinity; mend it")
    if values.numel() and (values.min() < 0 or values.max() > 1):
        values = _unnormalised(values, where, mean, std)
    levels = values * 255
    eight = levels.round().clamp(0, 255)
    return eight.to(torch.uint8).contiguous(), bool((levels - eight).abs().max() < _EXACT) if len(values) else True


def _unnormalised(values: Tensor, where: str, mean: Sequence[float] | None, std: Sequence[float] | None) -> Tensor:
    """Return images before their normalisation. ValueError: the numbers do not lead to [0, 1]."""
    seen = f"{where}: values from {float(values.min()):.3g} to {float(values.max()):.3g}"
    if mean is None or std is None:
        raise ValueError(
            f"{seen}, expected floats in [0, 1]. Divide images of 0 to 255 by 255. If the images are normalised, hand "
            "over mean=[...] and std=[...] of the normalisation, or images without it"
        )
    shape = (1, -1, 1, 1)
    before = values * torch.tensor(std, dtype=values.dtype).view(shape) + torch.tensor(mean, dtype=values.dtype).view(
        shape
    )
    if before.min() < -1e-3 or before.max() > 1 + 1e-3:
        raise ValueError(
            f"{seen}; with mean {shown(list(mean))} and std {shown(list(std))} they were "
            f"{float(before.min()):.3g} to {float(before.max()):.3g}, expected [0, 1]; mean and std are of another "
            "normalisation"
        )
    return before.clamp(0, 1)


def _classes(labels: Any, where: str) -> Targets:
    numbers = _numbers(labels)
    if numbers.ndim == 2 and 1 in numbers.shape:
        numbers = numbers.reshape(-1)
    if numbers.dtype.kind == "f" and np.array_equal(numbers, np.round(numbers)):
        numbers = numbers.astype(np.int64)
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        raise ValueError(
            f"{where}: labels of type {numbers.dtype} and shape {numbers.shape}; expected one whole number for each "
            "image, the number of its class"
        )
    return torch.from_numpy(numbers.astype(np.int64))


def _numbers(labels: Any) -> np.ndarray:
    return labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"
