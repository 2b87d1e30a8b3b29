"""A copy of a network that gives the same answers faster: BatchNorm folded into the layer before it, channels last.

In evaluation mode a BatchNorm is an affine map of each channel, so the convolution or linear layer before it can do its
work; where the BatchNorm was, nothing is left to do. Source: Jacob et al. 2018, section 3.2 (arXiv:1712.05877).

A module that says `in_place = False` may overwrite what its own sums and ReLUs are given: the copy says True. Measured
on a ResNet20 on a CPU: a tenth of a pass.
"""

import copy
from collections import Counter
from typing import Any, NamedTuple, TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from efface.types import Images


class _Fast(NamedTuple):
    """A copy, None where nothing is gained by one, and what the network was when it was made."""

    settings: list[Any]
    values: list[Tensor]
    network: nn.Module | None
    plain: list[Any]
    """Settings that are told by which object they are: kept, so that no other one can get their place in memory."""


FAST_COPIES: "WeakKeyDictionary[nn.Module, _Fast]" = WeakKeyDictionary()


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def fast_copy(model: nn.Module, images: Images) -> nn.Module:
    """The folded copy that was made before, or a new one if the model has changed; the model itself if it has hooks."""
    modules = [*model.modules()]
    if not len(images) or any(getattr(each, name) for each in modules for name in _HOOKS):
        return model
    values = [each for module in modules for held in own_tensors(module) for each in held.values() if each is not None]
    settings = _settings(modules, values)
    found = FAST_COPIES.get(model)
    if found is None or found.settings != settings or not _equal(found.values, values):
        made = folded(model, images)
        kept = [each.detach().clone() for each in values]  # versions do not count what is done to `.data`
        plain = [value for each in modules for value in vars(each).values() if isinstance(value, _PLAIN)]
        found = _Fast(settings, kept, None if made is model else made, plain)  # itself would keep it alive
        FAST_COPIES[model] = found
    return found.network or model


def own_tensors(module: nn.Module) -> tuple[dict[str, nn.Parameter | None], dict[str, Tensor | None]]:
    """A module's own, in a tenth of the time that `parameters` and `buffers` take."""
    return module._parameters, module._buffers  # noqa: SLF001


_PLAIN = (int, float, str, tuple)  # None and what is true or false are among them, or one object each


def _settings(modules: list[nn.Module], values: list[Tensor]) -> list[Any]:
    """All that a network's answers depend on but the numbers in its tensors: another list where it is changed.

    An attribute is told by which object it is: a fifth of the time that comparing takes. One that is set anew to the
    same costs another copy.
    """
    told = [
        (type(each), [(name, id(value)) for name, value in vars(each).items() if name != "training"])
        for each in modules
    ]
    return [told, [(each.shape, each.dtype, each.device) for each in values]]


def _equal(before: list[Tensor], now: list[Tensor]) -> bool:
    if all(each.device.type == "cpu" for each in now):
        return all(map(torch.equal, before, now))
    same = [(one == other).all() for one, other in zip(before, now, strict=True)]
    return bool(torch.stack([each.to(same[0].device) for each in same]).all())  # one answer to wait for


Layer = nn.Conv2d | nn.Linear


_TOLERANCE = 1e-3  # of the largest logit: folding moves float32 logits by some 1e-5


def folded(network: nn.Module, images: Images) -> nn.Module:
    """The copy, in evaluation mode; the network itself is left as it is, and is returned where nothing is to be gained.

    A BatchNorm stays that follows no layer, or whose layer's output is used elsewhere, too. Costs a copy of the weights
    and two forward passes of the first image.
    """
    if not any(isinstance(each, (nn.Conv2d, _BatchNorm)) for each in network.modules()):
        return network
    if any(
        "forward" in vars(each) for each in network.modules()
    ):  # it may work on what it was made with, not on a copy
        return network
    try:
        copied = copy.deepcopy(network).eval()
    except (RuntimeError, TypeError, AttributeError):  # what cannot be copied is used as it is
        return network
    with torch.no_grad():
        pairs, before = norms_after(copied, images[:1].clone())
        for layer, norm in pairs:
            fold_into(layer, norm)
        for each in copied.modules():
            if getattr(each, "in_place", None) is False:
                _work_in_place(each)
        copied = copied.to(memory_format=torch.channels_last)
        after = copied(images[:1].clone())
    if not isinstance(before, Tensor) or not isinstance(after, Tensor):
        return network
    return copied if (after - before).abs().max() <= _TOLERANCE * max(1.0, float(before.abs().max())) else network


def answers_as_before(copied: nn.Module, name: str) -> bool:
    """Whether a module of a folded copy makes what it makes in the network: no layer that does a later one's work."""
    inside = {*copied.get_submodule(name).modules()}
    folded_away = (each for each in copied.modules() if "done_by" in vars(each))
    return all(norm in inside or vars(norm)["done_by"] not in inside for norm in folded_away)


def norms_after(network: nn.Module, images: Images) -> tuple[list[tuple[Layer, _BatchNorm]], Any]:
    """Each layer whose output goes to a BatchNorm at once, with that BatchNorm; and the network's answer."""
    made: dict[tuple[int, int], nn.Module] = {}
    sources: dict[_BatchNorm, list[nn.Module | None]] = {}
    kept: list[Tensor] = []  # lest another tensor gets the same id
    ran: Counter[nn.Module] = Counter()

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        ran[module] += 1
        if isinstance(module, _BatchNorm):
            sources.setdefault(module, []).append(made.get(_mark(inputs[0])))

    def leave(module: nn.Module, _inputs: object, output: Tensor) -> None:
        made[_mark(output)] = module
        kept.append(output)

    watched = [module for module in network.modules() if is_layer(module) or isinstance(module, _BatchNorm)]
    handles = [module.register_forward_pre_hook(enter) for module in watched]
    handles += [module.register_forward_hook(leave) for module in watched if is_layer(module)]
    try:
        answer = network(images)
    finally:
        for handle in handles:
            handle.remove()
    used = Counter(source for each in sources.values() for source in each)
    pairs = []
    for norm, before in sources.items():
        layer = before[0]
        known = norm.running_mean is not None and norm.running_var is not None
        if layer is None or not known or not is_layer(layer) or {*before} != {layer}:
            continue
        if len(before) == used[layer] == ran[layer]:
            pairs.append((layer, norm))
    return pairs, answer


def fold_into(layer: Layer, norm: _BatchNorm) -> None:
    """Let the layer do the BatchNorm's work; the BatchNorm becomes the identity. Changes both."""
    scale, shift = affine(norm)
    bias = 0.0 if layer.bias is None else layer.bias.detach().double() * scale
    weight = layer.weight.detach()
    wide = scale.view(-1, *(1,) * (weight.ndim - 1))
    layer.weight = nn.Parameter((weight.double() * wide).to(weight), requires_grad=False)
    layer.bias = nn.Parameter((bias + shift).to(weight), requires_grad=False)
    norm.reset_parameters()
    norm.eps = 0.0  # with fresh statistics exactly the identity, should anything else fold it again
    vars(norm).update(forward=_unchanged, done_by=layer)  # past nn.Module, for which a layer there would be a child


def affine(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """What a BatchNorm multiplies each channel with in evaluation mode, and what it adds; float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    return scale, shift + norm.bias.detach().double() if norm.affine else shift


def is_layer(module: nn.Module) -> TypeGuard[Layer]:
    """A layer with weights that a BatchNorm can be folded into."""
    return isinstance(module, (nn.Conv2d, nn.Linear))


def _work_in_place(module: nn.Module) -> None:
    module.in_place = True  # type: ignore[assignment]
    for each in module.children():
        if isinstance(each, nn.ReLU):
            each.inplace = True


def _unchanged(x: Tensor) -> Tensor:
    return x


def _mark(tensor: Tensor) -> tuple[int, int]:
    """What works in place makes a new version of the same tensor."""
    return id(tensor), tensor._version  # noqa: SLF001
