"""Copy of a network with the same outputs, whose backward pass uses patterns instead of weights.

A gradient of the copy is a gradient along the patterns. So any gradient method can run on the copy unchanged.
"""

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from efface.base.types import Images
from efface.methods.backprop import RELUS, is_activation
from efface.models.fast_copy import Layer, affine, fold_into, is_layer, norms_after
from efface.models.layout import layouts
from efface.models.of_tokens import without_images
from efface.models.scores import logits_of

Back = Literal["pattern_net", "pattern_attribution"]
"""Replacement of a layer's weights w in the backward pass.

pattern_net: the layer's patterns a.
pattern_attribution: w * a, element by element.
"""
Start = Literal["logit", "one", "softmax"]
"""Start of the backward pass at the logits, for a target class c.

logit: the logit of c.
one: 1.
softmax: p_c^2 (e_c - p), the squared probability sent back through the softmax p.
"""

_TOLERANCE = 1e-3  # fraction of the largest logit; folding moves float32 logits by about 1e-5
_DEAD = 1e-6  # least weight of a BatchNorm's unit with a pattern; trained weights are near 1


def pattern_network(
    model: nn.Module, images: Images, patterns: Mapping[str, Tensor], *, back: Back, start: Start
) -> nn.Module:
    """Return the copy in evaluation mode, for `pattern_net` in float64. The model is not changed.

    images: images to explain. The first one costs two forward passes.
    patterns: patterns of each convolution and linear layer, by its name, in the shape of its weights.
    back: replacement of the weights, see `Back`.
    start: start of the backward pass, see `Start`.
    """
    network, rectified = folded_with_layers(model, images)
    if back == "pattern_net":
        network.double()
    missing = next((name for name in rectified if name not in patterns), None)
    foreign = next((name for name in patterns if name not in rectified), None)
    if missing is not None or foreign is not None:
        mismatch = f"none for its layer '{missing}'" if missing is not None else f"one for an unknown layer '{foreign}'"
        raise ValueError(
            f"patterns: {type(model).__name__} finds {mismatch}; expected its own: call fit on this network"
        )
    for name in rectified:
        layer, pattern = network.get_submodule(name), patterns[name]
        assert is_layer(layer)
        if pattern.shape != layer.weight.shape:
            raise ValueError(
                f"patterns: the pattern of layer '{name}' has shape {tuple(pattern.shape)}, its weights "
                f"{tuple(layer.weight.shape)}; expected the same shape: call fit on this network"
            )
        own = pattern.to(layer.weight)
        _turn(layer, own if back == "pattern_net" else layer.weight.detach() * own)
    for module in network.modules():
        if isinstance(module, _BatchNorm) and "forward" not in vars(module):
            _turn_norm(module, back)
    network.register_forward_hook(partial(_begin, start))
    return network


def folded_with_layers(model: nn.Module, images: Images) -> tuple[nn.Module, dict[str, bool]]:
    """Return a copy of the network with BatchNorms folded into the layers before them, in evaluation mode.

    Also return its convolutions and linear layers by name: True if a ReLU directly reads the layer's output. A
    BatchNorm that follows no layer stays. ValueError, with the name: patterns are not defined for a module.
    """
    network, first = copy.deepcopy(model).eval(), images[:1].clone()
    with torch.no_grad():
        pairs, before = norms_after(network, first)
        for layer, norm in pairs:
            fold_into(layer, norm)
        with _Trace(network) as trace:
            off = float((logits_of(network, first) - before).abs().max())
    _check_defined(network, trace.ran)
    for name, module in network.named_modules():
        layout = layouts(model, first).get(name) if module in trace.places else None
        if layout is not None and (why := without_images(layout)):
            raise ValueError(undefined(name, why))
    if off > _TOLERANCE * max(1.0, float(before.abs().max())):
        raise ValueError(
            f"patterns are not defined for {type(model).__name__}: its logits change by {off:.2g} when BatchNorm is "
            "folded into the layer before it; expected no change: another module also uses this layer's output: choose "
            "another method for this network"
        )
    layers = ((name, module) for name, module in network.named_modules() if is_layer(module) and module in trace.ran)
    return network, {name: trace.rectified[module] >= trace.ran[module] for name, module in layers}


def undefined(name: str, why: str) -> str:
    """Return in words that a layer has no patterns."""
    return (
        f"patterns are not defined for layer '{name}': {why}; expected one row per image: choose another method for "
        "this network, such as lrp or integrated_gradients"
    )


def padded(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Return a convolution's input with its padding."""
    sides = []
    for axis in (1, 0):  # F.pad starts with the last axis
        if isinstance(layer.padding, str):  # 'valid' or 'same'; an odd pixel goes to the end
            both = layer.dilation[axis] * (layer.kernel_size[axis] - 1) if layer.padding == "same" else 0
            sides += [both // 2, both - both // 2]
        else:
            sides += [int(layer.padding[axis])] * 2
    if not any(sides):
        return x
    return F.pad(x, sides, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)


class _Detour(torch.autograd.Function):
    """One function for the forward pass, another function for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, ahead: Callable[[Tensor], Tensor], back: Callable[[Tensor, torch.Size], Tensor]
    ) -> Tensor:
        ctx.back, ctx.shape = back, x.shape
        return ahead(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(gradients[0], ctx.shape), None, None


def _turn(layer: Layer, weight: Tensor) -> None:
    """Use other weights in the layer's backward pass."""
    if isinstance(layer, nn.Linear):
        linear = partial(F.linear, weight=layer.weight, bias=layer.bias)
        vars(layer)["forward"] = lambda x: _Detour.apply(x, linear, lambda gradient, _: gradient @ weight)
        return
    geometry = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}
    ahead = partial(F.conv2d, weight=layer.weight, bias=layer.bias, **geometry)

    def back(gradient: Tensor, shape: torch.Size) -> Tensor:
        return conv2d_input(shape, weight, gradient, **geometry)

    vars(layer)["forward"] = lambda x: _Detour.apply(padded(layer, x), ahead, back)


def _turn_norm(norm: _BatchNorm, back: Back) -> None:
    """Use the pattern in the backward pass of a BatchNorm that is not folded.

    Each of its units has one input, so the pattern is 1 / weight for any data.
    """
    scale, ahead = affine(norm)[0].to(norm.running_mean), norm.forward
    alive = scale.abs() > _DEAD
    factor = alive.to(scale) if back == "pattern_attribution" else torch.where(alive, 1 / scale, 0.0)

    def backward(gradient: Tensor, shape: torch.Size) -> Tensor:
        return gradient * factor.view(-1, *(1,) * (len(shape) - 2))

    vars(norm)["forward"] = lambda x: _Detour.apply(x, ahead, backward)


def _begin(start: Start, _network: nn.Module, _inputs: object, logits: Tensor) -> Tensor:
    """Replace the start of the backward pass; the logits stay unchanged."""
    if start == "one":
        return logits
    value = (logits if start == "logit" else logits.softmax(1)).detach()

    def back(gradient: Tensor, _: torch.Size) -> Tensor:
        weighted = gradient * value
        return weighted if start == "logit" else value * (weighted - (value * weighted).sum(1, keepdim=True))

    return _Detour.apply(logits, Tensor.clone, back)


class _Trace(TorchFunctionMode):
    """Count the runs of each module of a folded network, and how often a ReLU directly reads its output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.ran: Counter[nn.Module] = Counter()
        self.rectified: Counter[nn.Module | None] = Counter()
        self.places: set[nn.Module] = set()  # linear layers that work on several places
        self.made: dict[tuple[int, int], nn.Module] = {}
        self.kept: list[Tensor] = []  # keeps the tensors alive, so that their ids stay unique
        self.handles = [module.register_forward_hook(self.leave) for module in network.modules()]

    def leave(self, module: nn.Module, _inputs: object, output: Any) -> None:
        self.ran[module] += 1
        if is_layer(module):
            self.made[_key(output)] = module
            if isinstance(module, nn.Linear) and output.ndim > 2:
                self.places.add(module)
            self.kept.append(output)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if (func in RELUS or func is F.hardtanh) and args:
            self.rectified[self.made.get(_key(args[0]))] += 1
        return func(*args, **(kwargs or {}))

    def __exit__(self, *problem: object) -> None:
        for handle in self.handles:
            handle.remove()
        super().__exit__(*problem)


def _key(tensor: Tensor) -> tuple[int, int]:
    return id(tensor), tensor._version  # noqa: SLF001  an operation in place makes a new version of the same tensor


def _check_defined(network: nn.Module, ran: Mapping[nn.Module, int]) -> None:
    for name, module in network.named_modules():
        if module not in ran:
            continue
        if isinstance(module, _BatchNorm):
            known = module.running_mean is not None and module.running_var is not None
        elif is_activation(module):
            known = isinstance(module, (nn.ReLU, nn.ReLU6))
        elif is_layer(module):
            known = type(module).forward in (nn.Conv2d.forward, nn.Linear.forward)
        else:
            known = next(module.parameters(recurse=False), None) is None
        if not known:
            where = f"'{name}' ({type(module).__name__})" if name else type(module).__name__
            raise ValueError(
                f"patterns are not defined for {where}; expected a network of convolutions, linear layers, ReLUs, "
                "pooling, sums and BatchNorm with its own statistics: choose another method for this network, such as "
                "lrp or integrated_gradients"
            )
