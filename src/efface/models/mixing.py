"""Layers in which patches have met: those before them show the pixels of each patch and nothing that was computed."""

from math import prod
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from efface.base.types import Images
from efface.models.hook_watch import see_calls
from efface.models.laid_out import FeatureLayer
from efface.models.layout import identity_of

_PIXELS = 6
"""Number of pixels that are changed, one at a time. A convolution that overlaps itself shows one at several places."""


def reads_one_patch(model: nn.Module, images: Images, layer: FeatureLayer) -> bool:
    """Return True if each place of a layer depends on pixels that no other place depends on.

    It costs seven forward passes of an image in evaluation mode, once for each model and size of image.
    """
    kept = _KNOWN.setdefault(model, {})
    seen = identity_of(model, images)
    if seen not in kept:
        kept[seen] = _most_places(model, images[:1].detach())
    most = kept[seen].get((layer.name, layer.axes))
    return most is not None and int(most[0 if layer.grid is None else layer.grid.prefix]) < 2


_Most = dict[tuple[str, str], Tensor]
"""Number of places that a pixel changes at most, by layer and axes; of tokens, from each token on to the last one."""
_KNOWN: "WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], _Most]]" = WeakKeyDictionary()


def _most_places(model: nn.Module, image: Images) -> _Most:
    before, most = dict[str, Tensor](), _Most()

    def keep(name: str, _: nn.Module, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.ndim in (3, 4) and len(output) == 1:
            before[name] = output.detach().clone()

    def compare(name: str, _: nn.Module, output: object) -> None:
        if isinstance(output, Tensor) and name in before and output.shape == before[name].shape:
            for axes, places in _changed((output.detach() != before[name])[0]).items():
                most[name, axes] = torch.maximum(most.get((name, axes), places), places)

    see_calls(model, image, keep)
    for pixel in torch.randperm(prod(image.shape[2:]), generator=torch.Generator().manual_seed(0))[:_PIXELS]:
        changed = image.clone()
        changed.flatten(2)[:, :, int(pixel)] += 0.5
        see_calls(model, changed, compare)
    return most


def _changed(where: Tensor) -> dict[str, Tensor]:
    """Return how many places changed, for each way in which the axes of a layer can be meant."""
    if where.ndim == 3:
        return {"n c h w": where.any(0).sum()[None], "n h w c": where.any(2).sum()[None]}
    return {"n t c": where.any(1).flip(0).cumsum(0).flip(0)}
