"""The layers of a network in order, and copies of the network with some layers redrawn at random."""

import copy
import difflib
import math
from collections.abc import Collection, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from efface.base import draws
from efface.base.shown import shown
from efface.models.layers import find_layer

Draw = Literal["reset", "normal"]
Mode = Literal["cascading", "independent"]
Statistics = Literal["keep", "reset"]
"""The choice whether a BatchNorm keeps its running mean and variance, or starts from 0 and 1 as a fresh one does."""
Layers = tuple[str, ...] | None
"""Names from the output down. None: every module with parameters of its own."""

PRESETS = {
    "inception_v3": (
        *("fc", "Mixed_7c", "Mixed_7b", "Mixed_7a", "Mixed_6e", "Mixed_6d", "Mixed_6c", "Mixed_6b", "Mixed_6a"),
        *("Mixed_5d", "Conv2d_4a_3x3", "Conv2d_3b_1x1"),
        *("Conv2d_2b_3x3", "Conv2d_2a_3x3", "Conv2d_1a_3x3"),
    ),
    "resnet": ("fc", "layer4", "layer3", "layer2", "layer1", "bn1", "conv1"),
    "resnet_small": ("linear", "layer3", "layer2", "layer1", "bn1", "conv1"),
}
"""Ordered lists for torchvision's Inception-v3 and ResNets, and for the small ResNets of `efface.models.resnet`."""

POINTS = 8


def read_layers(metric: str, layers: list[str] | str | None, points: int | None) -> tuple[Layers, tuple[float, ...]]:
    """Return the layers that a study names, and the shares of layers that are the points of a curve.

    layers: names, the name of a preset, or None for all modules with parameters.
    points: steps of the axis besides 0. Default: one for each named layer, or 8 without names.
    ValueError: no such preset, a name twice, or no point.
    """
    if isinstance(layers, str):
        if layers not in PRESETS:
            close = difflib.get_close_matches(layers, PRESETS, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise ValueError(
                f"{metric}: layers is '{layers}', expected a list of names or one of {', '.join(PRESETS)}; "
                f"{hint}for a single layer write ['{layers}']"
            )
        layers = list(PRESETS[layers])
    if layers is not None and (not layers or len(set(layers)) != len(layers)):
        raise ValueError(f"{metric}: layers is {layers}, expected names from the output down, each once; change it")
    steps = (POINTS if layers is None else len(layers)) if points is None else points
    if steps < 1:
        raise ValueError(f"{metric}: points is {steps}, expected a whole number of at least 1; raise it")
    return None if layers is None else tuple(layers), tuple(step / steps for step in range(steps + 1))


def groups(network: nn.Module, layers: Layers, statistics: Statistics = "keep") -> list[tuple[str, ...]]:
    """Return, for each layer from the output down, the names of its modules with parameters of their own.

    Without `layers`, each such module is a layer. A parametrization of torch belongs to its module. The order is the
    reverse of the order in the network. With `statistics` "reset", a module with running statistics counts as well, if
    it has no parameters.
    ValueError: the network has no such layer (the message names similar ones), or the layer has no parameters.
    """
    reset = statistics == "reset"
    names = {
        module: name
        for name, module in network.named_modules()
        if _PARAMETRIZATIONS not in name.split(".") and (_learns(module) or (reset and _has_statistics(module)))
    }
    if layers is None:
        if not names:
            raise ValueError(f"{type(network).__name__} has no parameters; expected a network with parameters")
        return [(name,) for name in reversed(names.values())]
    by_layer: list[tuple[str, ...]] = []
    for layer in layers:
        inside = tuple(names[module] for module in find_layer(network, layer).modules() if module in names)
        if not inside:
            raise ValueError(f"layer {shown(layer)} of {type(network).__name__} has no parameters; name one that has")
        by_layer.append(inside)
    return by_layer


def reached(count: int, share: float) -> int:
    """Return the number of layers in a share, rounded up. Any share above 0 has at least one layer."""
    return math.ceil(share * count - 1e-6)


def chosen(network: nn.Module, layers: Layers, share: float, mode: Mode, statistics: Statistics = "keep") -> list[str]:
    """Return the modules to redraw at a share: those of all layers down to it, or only those of the layer at it."""
    every = groups(network, layers, statistics)
    upto = reached(len(every), share)
    return [name for group in every[0 if mode == "cascading" else max(0, upto - 1) : upto] for name in group]


def redrawn(
    network: nn.Module, names: Sequence[str], *, draw: Draw, seed: int, statistics: Statistics = "keep"
) -> nn.Module:
    """Return a copy of the network with new random parameters in these modules. The given network does not change.

    The draw of a module depends only on its name and the seed. It is the same on any device and for any set of other
    modules.

    draw: `reset`: the module's own `reset_parameters`, as for fresh layers of torch. A tensor that this leaves as it
        was, such as those of the old `weight_norm`, is drawn as by `normal`. `normal`, also for a module without that
        function: each tensor from a normal distribution with its own mean and standard deviation. The scale of a
        BatchNorm is kept. A parametrized tensor is drawn as a plain one, then it becomes the module's weight; where
        its parametrization cannot be inverted, the tensors that it is computed from are drawn as by `normal`.
    statistics: `keep`: buffers such as the running statistics of a BatchNorm stay those of the given network. `reset`:
        those of these modules become the ones of a fresh module.
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    for part in network.modules():  # such a tensor is computed from others in each pass, and cannot be copied
        for held, value in vars(part).items():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                vars(part)[held] = value.detach()
    copied = copy.deepcopy(network).cpu()
    for name in names:
        given: Any = copied.get_submodule(name)
        with torch.no_grad(), draws.seeded(draws.seed_of(f"{seed} redrawn {name}")):
            module = _plain(given)
            kept = {buffer: value.clone() for buffer, value in module.named_buffers(recurse=False)}
            if draw == "reset" and hasattr(module, "reset_parameters"):
                before = {parameter: value.clone() for parameter, value in module.named_parameters(recurse=False)}
                module.reset_parameters()  # a BatchNorm also resets its statistics
                _normal(
                    module,
                    [
                        parameter
                        for parameter, value in before.items()
                        if torch.equal(value, getattr(module, parameter))
                    ],
                )
            else:
                _normal(module)
                if statistics == "reset" and _has_statistics(module):
                    module.reset_running_stats()
            if statistics == "keep":
                for buffer, value in module.named_buffers(recurse=False):
                    value.copy_(kept[buffer])
            if module is not given:
                _take_over(given, module)
    return copied.to(device).eval()


_PARAMETRIZATIONS = "parametrizations"
"""Child under which torch keeps what a module's tensors are computed from."""


def _plain(module: Any) -> Any:
    """Return the module; for a parametrized one a copy whose tensors are plain parameters."""
    if not is_parametrized(module):
        return module
    kind: Any = type(module).__mro__[1]  # torch derives a class for the parametrized tensors
    made: Any = kind.__new__(kind)
    tensors = [*(name for name, _ in module.named_parameters(recurse=False)), *module.parametrizations]
    vars(made).update(
        vars(module)
        | {
            "_parameters": {name: nn.Parameter(getattr(module, name).clone()) for name in tensors},
            "_buffers": {name: value.clone() for name, value in module.named_buffers(recurse=False)},
            "_modules": {name: child for name, child in module.named_children() if name != _PARAMETRIZATIONS},
        }
    )
    return made


def _take_over(module: Any, plain: Any) -> None:
    """Give a parametrized module the values of its plain copy."""
    for name, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        value.copy_(getattr(plain, name))
    for name, held in module.parametrizations.items():
        try:
            setattr(module, name, getattr(plain, name).detach())
        except torch.OutOfMemoryError:
            raise
        except (NotImplementedError, RuntimeError):  # it cannot be inverted
            _normal(held)


def _normal(module: nn.Module, names: Collection[str] | None = None) -> None:
    """Draw a module's own parameters, all or some, from normal distributions with their own mean and deviation."""
    for name, value in module.named_parameters(recurse=False):
        if (names is None or name in names) and not (isinstance(module, _BatchNorm) and name == "weight"):
            value.copy_(torch.randn_like(value) * value.std(correction=0) + value.mean())


def _learns(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None or is_parametrized(module)


def _has_statistics(module: Any) -> bool:
    return hasattr(module, "reset_running_stats") and getattr(module, "running_mean", None) is not None
