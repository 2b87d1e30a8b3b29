"""Search for layers of a network: by name, or the layer of the last features, which the CAM methods use."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

from efface.base.shown import shown
from efface.base.types import Images
from efface.models.cut import is_cut
from efface.models.hook_watch import see_calls
from efface.models.laid_out import FeatureLayer
from efface.models.layout import check_feature_map, identity_of, layouts
from efface.models.of_tokens import (
    as_laid_out,
    computes_with_tokens,
    in_attention,
    last_of_tokens,
    usable,
    usable_layers,
)
from efface.models.reached import reaches
from efface.models.tokens import STATED

WITHIN = "efface_layers_within"
"""Attribute of a network around another one, which it answers differently: the name of the inner network.

The last features are those of the inner network, also where the answer passes by them.
"""

_NOT_FEATURES = {"torch.nn.modules.pooling", "torch.nn.modules.dropout"}


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """Return the module of that name, also in a wrapped network: `layer3.0` also finds `network.layer3.0`.

    The exact name has priority, then the least deeply nested module whose name ends in `.name`. ValueError: there are
    several such modules at this depth, or none.
    """
    modules = dict(model.named_modules())
    if name and name in modules:
        return modules[name]
    if name.startswith("network.") and name.removeprefix("network.") in modules:  # torchvision's networks in efface 0.1
        return modules[name.removeprefix("network.")]
    ends = [full for full in modules if name and full.endswith(f".{name}")]
    depth = min((full.count(".") for full in ends), default=0)
    matches = [full for full in ends if full.count(".") == depth]
    if len(matches) == 1:
        return modules[matches[0]]
    if matches:
        raise ValueError(f"layer {shown(name)} can be {_some(matches)} in {type(model).__name__}; write the whole name")
    raise ValueError(f"layer {shown(name)}: {type(model).__name__} has no such layer; {_nearest(name, modules)}")


def feature_layer(model: nn.Module, images: Images, layer: str | None) -> FeatureLayer:
    """Return the layer of that name and how its output is laid out, or without a name the layer of the last features.

    A convolutional network's last features are its last feature map, n c h w, through which all passes that the network
    reads from the image. It is the last such module to finish whose output has four axes and more than one position,
    with a convolution in it or before it. Pooling and dropout do not count, nor does a convolution that computes the
    class scores. The result is therefore the whole last stage: `layer4` of a ResNet, `features` of VGG, SqueezeNet and
    DenseNet.

    A network that computes with tokens, or with channels last, after its last feature map is looked at there; see
    `last_of_tokens`.

    The search costs a few passes in evaluation mode and is done once for each size of image. A convolutional network
    whose layer is not named costs two passes of the first image, one of them with its gradient. The model is not
    changed.

    ValueError: there is no such layer, or none can be used; the message says why, and names layers that can.
    """
    kept = _FOUND.setdefault(model, {})
    seen = (layer, getattr(model, STATED, None), *identity_of(model, images))
    if seen not in kept:
        kept[seen] = (_last(model, images[:1]) if layer is None else _named(model, images[:1], layer))[1:]
    name, *rest = kept[seen]
    return FeatureLayer(model.get_submodule(name), name, *rest)


def last_convolution(model: nn.Module, images: Images) -> nn.Module:
    """Return the module of the last features. Grad-CAM uses it when no layer is named. See `feature_layer`."""
    return feature_layer(model, images, None).module


_FOUND: "WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], tuple[Any, ...]]]" = WeakKeyDictionary()
"""Layers that were found, without the modules, which would keep the model alive."""


def _named(model: nn.Module, images: Images, layer: str) -> FeatureLayer:
    module = find_layer(model, layer)
    name = _name_of(model, module)
    layout = layouts(model, images).get(name)
    if not computes_with_tokens(model) and (layout is None or (len(layout.shape) == 4 and not layout.wrong)):
        return FeatureLayer(module, name)  # a layer with fewer axes is refused where its output is seen
    found = usable(model, images, name)
    if isinstance(found, FeatureLayer):
        return found
    shape = reaches(model, images)[name].shape[1:] if name in reaches(model, images) else ()
    returns = f"returns {' x '.join(map(str, ('n', *shape)))}" if shape else "returns no tensor"
    able = usable_layers(model, images)
    remedy = f"layers that work: {', '.join(able)}" if able else "no other layer works: choose a method without a layer"
    raise ValueError(f"layer {name!r} of {type(model).__name__} {returns}, which gives no map: {found}; {remedy}")


def _last(model: nn.Module, images: Images) -> FeatureLayer:
    within: str | None = getattr(model, WITHIN, None)
    if within is not None:
        inner = _last(model.get_submodule(within), images)
        return inner._replace(name=f"{within}.{inner.name}")
    calls = _calls(model, images)
    maps, tokens = _maps(calls), [i for i, call in enumerate(calls) if _of_tokens(call)]
    if tokens:
        while maps and not _is_n_c_h_w(model, images, calls[maps[-1]].module):
            maps.pop()
        outside = [i for i in maps if not in_attention(model, _name_of(model, calls[i].module))]
        after = outside[-1] if outside else -1
        if tokens[-1] > after and (found := _last_tokens(model, images, calls[after].module if outside else None)):
            return found
    if not maps or calls[maps[-1]].module is model:
        size = "x".join(map(str, images.shape[2:]))
        raise ValueError(
            f"{type(model).__name__} on {size} images has no convolution with more than 1x1 positions in its output; "
            "name a layer or take larger images"
        )
    last = _last_whole(model, images, calls, maps)
    name = _name_of(model, last)
    if tokens:
        check_feature_map(model, images, name)
    first = next((call.module for call in calls if _is_learnt(call.module)), None)
    if tokens and last is first and tokens[-1] > maps[-1]:
        raise ValueError(
            f"the only feature map of {type(model).__name__} with shape n c h w is its first layer, {name!r}. All "
            "later layers compute on tokens, and a map of the first layer does not show what they use. Choose another "
            f"method, or set layer: {name}"
        )
    return FeatureLayer(last, name)


def _maps(calls: Sequence["_Call"], *, dropout: bool = False) -> list[int]:
    """Return the numbers of the calls that may have returned a feature map, before that of the class scores.

    dropout: whether the output of dropout counts, which is its input.
    """
    classes, end = calls[-1].shape[1:2], len(calls)
    learnt = [i for i, call in enumerate(calls) if _is_learnt(call.module)]
    if learnt and calls[learnt[-1]].shape[1:2] == classes:
        end = learnt[-1]
    convolved, maps = False, list[int]()
    for i, call in enumerate(calls[:end]):
        convolved = convolved or isinstance(call.module, (nn.Conv2d, nn.ConvTranspose2d))
        if convolved and _is_feature_map(call, dropout=dropout):
            maps.append(i)
    return maps


def _last_whole(model: nn.Module, images: Images, calls: Sequence["_Call"], maps: Sequence[int]) -> nn.Module:
    """Return the last of the feature maps through which all passes that the network reads from the image.

    If the last map is a branch, dropout counts, too: it may return the sum to which the branch is added.

    ValueError: there is none, or only the first convolution and what follows it are such.
    """
    last = calls[maps[-1]].module
    if is_cut(model, images, _name_of(model, last)):
        return last
    every = {calls[i].module: i for i in reversed(_maps(calls, dropout=True))}
    for module, at in every.items():
        if sum(isinstance(call.module, nn.Conv2d | nn.ConvTranspose2d) for call in calls[: at + 1]) < 2:
            break
        if module is not last and is_cut(model, images, _name_of(model, module)):
            return module
    raise ValueError(
        f"no layer is named, and none of {type(model).__name__} shows all that the network uses: branches pass by each "
        f"of its feature maps but the first. Name the layer: {_some([_name_of(model, module) for module in every])}"
    )


def _last_tokens(model: nn.Module, images: Images, after: nn.Module | None) -> FeatureLayer | None:
    """Return the last layer of tokens after a module; None if there is none. ValueError: no map can be made of them."""
    found = last_of_tokens(model, images, "" if after is None else _name_of(model, after))
    if isinstance(found, str):
        able = usable_layers(model, images)
        raise ValueError(
            f"{type(model).__name__} computes with tokens, and no layer is named. Of its layers, {found}; "
            f"{f'name one of {_some(able)}, or ' if able else ''}choose another method"
        )
    return found


def _is_n_c_h_w(model: nn.Module, images: Images, module: nn.Module) -> bool:
    if module is model:
        return True  # refused later
    layer = as_laid_out(model, images, _name_of(model, module))
    return isinstance(layer, FeatureLayer) and layer.axes == "n c h w"


def _name_of(model: nn.Module, module: nn.Module) -> str:
    return next(name for name, submodule in model.named_modules() if submodule is module)


class _Call(NamedTuple):
    module: nn.Module
    shape: tuple[int, ...]


def _calls(model: nn.Module, images: Images) -> list[_Call]:
    """Return all calls of modules in one forward pass, in the order in which they finish; the model is the last."""
    calls: list[_Call] = []

    def see(_: str, module: nn.Module, output: object) -> None:
        calls.append(_Call(module, tuple(output.shape) if isinstance(output, torch.Tensor) else ()))

    see_calls(model, images, see)
    return calls


def _is_learnt(module: nn.Module) -> bool:
    leaf = next(module.children(), None) is None
    return leaf and next(module.parameters(recurse=False), None) is not None


def _of_tokens(call: _Call) -> bool:
    """Return True for what transformers compute with: three axes, or features on the last of four."""
    on_last = isinstance(call.module, nn.LayerNorm | nn.Linear | nn.MultiheadAttention)
    return len(call.shape) == 3 or (len(call.shape) == 4 and on_last and call.shape[1:3] != (1, 1))


def _is_feature_map(call: _Call, *, dropout: bool) -> bool:
    places, of = call.shape[2:], type(call.module).__module__
    counts = of not in _NOT_FEATURES or (dropout and of == nn.Dropout.__module__)
    return len(places) == 2 and places != (1, 1) and counts


def _nearest(name: str, modules: dict[str, nn.Module]) -> str:
    near = get_close_matches(name, [full for full in modules if full], n=3, cutoff=0.5)
    if near:
        return f"nearest are {_some(near)}"
    return f"it has {_some([full for full in modules if full and full.count('.') < 2])}"


def _some(names: list[str], count: int = 8) -> str:
    rest = len(names) - count
    return ", ".join(names[:count]) + (f" and {rest} more" if rest > 0 else "")
