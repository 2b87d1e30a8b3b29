"""Search for layers of a network: by name, or the layer of the feature map that the CAM methods use."""

from difflib import get_close_matches
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn

from efface.models.hook_watch import see_calls
from efface.models.layout import check_feature_map
from efface.shown import shown
from efface.types import Images

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


def feature_layer(model: nn.Module, images: Images, layer: str | None) -> nn.Module:
    """Return the module of a feature map n c h w: the named one, or without a name that of `last_convolution`.

    ValueError: there is no such layer, or its output is laid out in another way.
    """
    if layer is None:
        return last_convolution(model, images[:1])
    module = find_layer(model, layer)
    check_feature_map(model, images[:1], next(name for name, submodule in model.named_modules() if submodule is module))
    return module


def last_convolution(model: nn.Module, images: Images) -> nn.Module:
    """Return the module that computes the last feature map. Grad-CAM uses it when no layer is named.

    It is the last module to finish whose output has four axes and more than one position, with a convolution in it or
    before it. Pooling and dropout do not count, nor does a convolution that computes the class scores. The result is
    therefore the whole last stage: `layer4` of a ResNet, `features` of VGG, SqueezeNet and DenseNet. The search costs
    one forward pass of the first image in evaluation mode and is done once. The model is not changed.

    ValueError: there is none; it is laid out in another way than n c h w; or it is the first layer, after which the
        network computes with tokens.
    """
    kept = _LAST.setdefault(model, {})
    seen = (*images.shape[1:], *((name, type(submodule)) for name, submodule in model.named_modules()))
    if seen not in kept:
        module = _last_convolution(model, images)
        kept[seen] = next(name for name, submodule in model.named_modules() if submodule is module)
    return model.get_submodule(kept[seen])


_LAST: "WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], str]]" = WeakKeyDictionary()


def _last_convolution(model: nn.Module, images: Images) -> nn.Module:
    calls = _calls(model, images[:1])
    classes = calls[-1].shape[1:2]
    learnt = [i for i, call in enumerate(calls) if next(call.module.children(), None) is None and _learns(call.module)]
    end = len(calls)
    if learnt and calls[learnt[-1]].shape[1:2] == classes:
        end = learnt[-1]
    convolved, last = False, cast("_Call | None", None)
    for call in calls[:end]:
        convolved = convolved or isinstance(call.module, (nn.Conv2d, nn.ConvTranspose2d))
        if convolved and _is_feature_map(call):
            last = call
    if last is None or last.module is model:
        size = "x".join(map(str, images.shape[2:]))
        raise ValueError(
            f"{type(model).__name__} on {size} images has no convolution with more than 1x1 positions in its output; "
            "name a layer or take larger images"
        )
    tokens = [call for call in calls if _of_tokens(call)]
    if not tokens:
        return last.module
    name = next(name for name, submodule in model.named_modules() if submodule is last.module)
    check_feature_map(model, images, name)
    if learnt and last.module is calls[learnt[0]].module and calls.index(tokens[-1]) > calls.index(last):
        raise ValueError(
            f"the only feature map of {type(model).__name__} with shape n c h w is its first layer, {name!r}. All "
            "later layers compute on tokens, and a map of the first layer does not show what they use. Choose another "
            f"method, or set layer: {name}"
        )
    return last.module


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


def _learns(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _of_tokens(call: _Call) -> bool:
    """Return True for what transformers compute with: three axes, or features on the last of four."""
    on_last = isinstance(call.module, nn.LayerNorm | nn.Linear | nn.MultiheadAttention)
    return len(call.shape) == 3 or (len(call.shape) == 4 and on_last and call.shape[1:3] != (1, 1))


def _is_feature_map(call: _Call) -> bool:
    places = call.shape[2:]
    return len(places) == 2 and places != (1, 1) and type(call.module).__module__ not in _NOT_FEATURES


def _nearest(name: str, modules: dict[str, nn.Module]) -> str:
    near = get_close_matches(name, [full for full in modules if full], n=3, cutoff=0.5)
    if near:
        return f"nearest are {_some(near)}"
    return f"it has {_some([full for full in modules if full and full.count('.') < 2])}"


def _some(names: list[str], count: int = 8) -> str:
    rest = len(names) - count
    return ", ".join(names[:count]) + (f" and {rest} more" if rest > 0 else "")
