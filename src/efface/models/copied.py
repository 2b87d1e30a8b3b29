"""Copies of networks. Where modules hold nothing unusual, a copy takes a third of the time of `copy.deepcopy`."""

import copy
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device, type, FunctionType, BuiltinFunctionType)
"""Types of values that a copy may share, because nobody can change them."""

_OF_MODULES = {"_parameters": nn.Parameter, "_buffers": Tensor, "_modules": nn.Module}


def copied_network(network: nn.Module) -> nn.Module:
    """Return a deep copy of a network.

    Settings of a module that are more than numbers, texts and functions, own rules of copying, hooks and kinds of
    tensors that torch does not make itself are left to `copy.deepcopy`.
    """
    modules = list(network.modules())
    if not all(map(_is_usual, modules)):
        return copy.deepcopy(network)
    tensors: dict[int, Tensor] = {}  # two modules may share one
    made: dict[nn.Module, nn.Module] = {module: type(module).__new__(type(module)) for module in modules}
    for module, copied in made.items():
        held: dict[str, Any] = {name: _own(value) for name, value in vars(module).items()}
        for name, value in module._modules.items():  # noqa: SLF001
            held["_modules"][name] = None if value is None else made[value]
        for kind in ("_parameters", "_buffers"):
            for name, value in vars(module)[kind].items():
                held[kind][name] = None if value is None else tensors.setdefault(id(value), _copied(value))
        vars(copied).update(held)
    return made[network]


def _own(value: Any) -> Any:
    """Return an empty mapping, a set or list of the same content, or the value itself, which nobody can change."""
    if isinstance(value, Mapping):
        return type(value)()
    return type(value)(value) if isinstance(value, set | list) else value


def _copied(value: Tensor) -> Tensor:
    values = value.detach().clone()
    return nn.Parameter(values, value.requires_grad) if isinstance(value, nn.Parameter) else values


def _is_usual(module: nn.Module) -> bool:
    """Return True if a module is copied by `copied_network` as `copy.deepcopy` copies it."""
    kind = type(module)
    own = any(hasattr(kind, method) for method in ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__"))
    if own or kind.__reduce_ex__ is not object.__reduce_ex__ or kind.__reduce__ is not object.__reduce__:
        return False
    states = "__setstate__", "__getstate__"
    of_torch = kind.__module__.startswith("torch.nn.modules.")  # theirs fill in what files of old versions lack
    if not of_torch and any(getattr(kind, method) is not getattr(nn.Module, method) for method in states):
        return False
    return all(_is_usual_value(name, value) for name, value in vars(module).items())


def _is_usual_value(name: str, value: Any) -> bool:
    if name in _OF_MODULES:
        return all(entry is None or _is_held(_OF_MODULES[name], entry) for entry in value.values())
    if isinstance(value, Mapping):  # of hooks
        return not value
    if isinstance(value, tuple | list | set):
        return all(isinstance(element, _PLAIN) for element in value)
    return isinstance(value, _PLAIN)


def _is_held(kind: Any, value: Any) -> bool:
    if kind is nn.Module:
        return isinstance(value, nn.Module)
    return type(value) is kind and bool(value.is_leaf)
