"""Checks of what the functions of `imputer`, `post` and `unit` return: a wrong result is named and not measured."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from efface.base.types import Images, Maps


def checked_fill(imputer: Callable[..., Any], found: Any, images: Images) -> Images:
    """Return what an imputer gave for these images. ValueError: it has not their shape, or is not floating.

    The values are not read, so the check costs nothing.
    """
    if isinstance(found, Tensor) and found.shape == images.shape and found.is_floating_point():
        return found
    raise ValueError(
        f"imputer: {called(imputer)} gives {_shown(found)} for images of {tuple(images.shape)}; expected floating "
        "numbers in the shape of the images"
    )


def check_filled(imputer: Callable[..., Any], fill: Images, removed: Tensor) -> None:
    """Raise ValueError if a removed pixel (True in n h w) of a fill is not finite."""
    bad = (~fill.isfinite()).any(1) & removed
    if bad.any():
        raise ValueError(
            f"imputer: {called(imputer)} gives NaN or infinity for {int(bad.sum())} of {int(removed.sum())} removed "
            "pixels; expected a number for each of them"
        )


def checked_post(step: Callable[..., Any], found: Any, maps: Maps) -> Maps:
    """Return what a step of `post` made of these maps. ValueError: it lost maps, their height or their width."""
    if isinstance(found, Tensor) and found.ndim in (3, 4):
        n, *_, h, w = found.shape
        if (n, h, w) == (len(maps), *maps.shape[-2:]):
            return found
    raise ValueError(
        f"post: {called(step)} gives {_shown(found)} for maps of {tuple(maps.shape)}; expected as many maps of the "
        "same height and width, with or without channels"
    )


def labels_of(unit: Callable[[Images], Any], images: Images) -> Int[Tensor, "n h w"]:
    """Return the labels of a unit for these images, int64. ValueError: they are no labels from 0 without gaps."""
    labels, (n, _, h, w) = unit(images), images.shape
    if not isinstance(labels, Tensor) or labels.shape != (n, h, w) or labels.dtype not in _WHOLE:
        raise ValueError(
            f"unit: {called(unit)} gives {_shown(labels)} for images of {tuple(images.shape)}; expected a whole number "
            f"for each pixel, int64 of shape {(n, h, w)}"
        )
    flat = labels.flatten(1).long()
    low, high = (int(bound) for bound in flat.aminmax())
    if low < 0 or high >= h * w:
        raise ValueError(
            f"unit: {called(unit)} gives labels from {low} to {high} for images of {h} x {w}; expected labels from 0 "
            "to the number of groups of the image - 1"
        )
    seen = torch.zeros(n, high + 1, dtype=torch.bool, device=flat.device).scatter_(1, flat, True)
    if gaps := (seen.sum(1) <= flat.amax(1)).nonzero().flatten().tolist():
        first = seen[gaps[0]]
        absent, last = int((~first).nonzero()[0]), int(first.nonzero()[-1])
        raise ValueError(
            f"unit: {called(unit)} gives labels with gaps: image {gaps[0]} has no pixel of group {absent}, but one of "
            f"group {last}; number the groups of each image from 0 without gaps"
        )
    return flat.reshape(n, h, w)


_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def called(function: Callable[..., Any]) -> str:
    """Return the name of a plug-in for a message: the dotted path of a study's call, or the function's own name."""
    return str(getattr(function, "call", None) or getattr(function, "__qualname__", type(function).__qualname__))


def _shown(result: Any) -> str:
    """Return a result in words."""
    if not isinstance(result, Tensor):
        return "nothing" if result is None else f"a {type(result).__name__}"
    return f"{str(result.dtype).removeprefix('torch.')} of shape {tuple(result.shape)}"
