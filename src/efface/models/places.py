"""Places of the values of every layer, for methods that add up what all layers say.

`efface.models.of_tokens` says how a layer is laid out where the image or the layer tells. A layer with one place, or
with few, may tell nothing. It is then laid out as the layers are whose output has the same shape.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import nn

from efface.base.types import Images
from efface.models.laid_out import Axes, FeatureLayer
from efface.models.layout import Layout, identity_of, layouts
from efface.models.normalise import Normalise
from efface.models.of_tokens import as_laid_out
from efface.models.tokens import STATED, TokenGrid

_CHANNELS_SECOND = (
    *(nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.InstanceNorm2d, nn.GroupNorm),
    *(nn.LocalResponseNorm, Normalise),
)


def placed(model: nn.Module, images: Images, name: str) -> FeatureLayer | str:
    """Return the layer of that name with its layout, or in words why its values have no known place in the image.

    Other than `efface.models.layers.feature_layer`, it does not ask whether a map of this layer alone shows what the
    network uses.

    It costs a few passes in evaluation mode, once for each model and size of image.
    """
    kept = _PLACED.setdefault(model, {})
    seen = (getattr(model, STATED, None), *identity_of(model, images))
    if seen not in kept:
        kept[seen] = _all_placed(model, images[:1])
    found = kept[seen].get(name) or str(as_laid_out(model, images, name))
    return found if isinstance(found, str) else FeatureLayer(model.get_submodule(name), name, *found)


class _Placed(NamedTuple):
    axes: Axes
    grid: TokenGrid | None = None


_PLACED: "WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], dict[str, _Placed | str]]]" = WeakKeyDictionary()


def _all_placed(model: nn.Module, images: Images) -> dict[str, _Placed | str]:
    by_name = layouts(model, images)
    each = [name for name, layout in by_name.items() if layout.each]
    known = {name: layer for name in each if (layer := _known(model, images, name, by_name[name])) is not None}
    return {name: known.get(name) or _as_alike(model, images, name, known) for name in by_name}


def _known(model: nn.Module, images: Images, name: str, layout: Layout) -> _Placed | None:
    """Return how a layer is laid out if its kind, its only place or the image tells."""
    if len(layout.shape) == 4:
        if isinstance(model.get_submodule(name), _CHANNELS_SECOND) or layout.shape[2:] == (1, 1):
            return _Placed("n c h w")
        if layout.shape[1:3] == (1, 1):
            return _Placed("n h w c")
    found = as_laid_out(model, images, name)
    if isinstance(found, str) or (found.axes == "n c h w" and not layout.is_feature_map):
        return None
    return _Placed(found.axes, found.grid)


def _as_alike(model: nn.Module, images: Images, name: str, known: Mapping[str, _Placed]) -> _Placed | str:
    """Return how the layers are laid out whose output has the same shape; without such, all with four axes.

    Tokens as many as channels are left out, because a layer that mixes the tokens may return them as n channels tokens.
    """
    by_name, is_linear = layouts(model, images), isinstance(model.get_submodule(name), nn.Linear)
    layout = by_name[name]
    alike = {placed for other, placed in known.items() if by_name[other].shape == layout.shape}
    if len(layout.shape) == 3 or not layout.each:
        told = layout.each and len(alike) == 1 and layout.shape[1] != layout.shape[2]
        return alike.pop() if told else str(as_laid_out(model, images, name))
    able = alike or {placed for placed in known.values() if placed.grid is None} or {_Placed("n c h w")}
    if len(able) > 1 or (is_linear and _Placed("n c h w") in able):
        return "nothing tells whether its channels are on the second axis or on the last"
    return able.pop()
