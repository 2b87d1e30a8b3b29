"""The state of a network around a call of a method: modules, hooks, modes, gradients and flags."""

import contextlib
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from efface.models.modes import modes_restored


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Restore the model's modules, hooks, modes, gradients and flags on exit, also after an exception.

    The values of weights and buffers are not kept: the stage compares the network's digest after each method.
    """
    modules = [each for each in model.modules() if not isinstance(each, torch.jit.ScriptModule)]  # its parts are fixed
    parameters = list(model.parameters())
    parts = [
        (each, type(each), [dict(vars(each)[name]) for name in _PARTS], vars(each).get("forward")) for each in modules
    ]
    hooks = [{name: _kept(own[name]) for name in _HOOKS if own.get(name, {}) != {}} for own in map(vars, modules)]
    flags = [(each.requires_grad, each.grad) for each in parameters]
    with modes_restored(model):
        try:
            yield
        finally:
            for each, kind, held, forward in parts:
                _put_back(each, kind, held, forward)
            for each, kept in zip(modules, hooks, strict=True):
                own = vars(each)
                for name in _HOOKS:
                    now = own.get(name, {})
                    if now == {} and name not in kept:
                        continue
                    if isinstance(now, dict):  # keep the same dict object, because hook handles refer to it
                        now.clear()
                        now.update(kept.get(name, {}))
                        own[name] = now
                    else:
                        own[name] = kept.get(name)
            for parameter, (flag, grad) in zip(parameters, flags, strict=True):
                if parameter.requires_grad != flag:
                    parameter.requires_grad_(flag)
                if parameter.grad is not grad:
                    parameter.grad = grad


_PARTS = ("_modules", "_parameters", "_buffers")
_HOOKS = tuple(name for name in vars(nn.Module()) if "_hook" in name)


def _put_back(module: nn.Module, kind: type, held: list[dict[str, Any]], forward: Any) -> None:
    """Give a module its class, its children, its tensors and its forward back."""
    own = vars(module)
    if type(module) is not kind:
        module.__class__ = kind
    for name, found in zip(_PARTS, held, strict=True):
        now = own[name]
        if now.keys() != found.keys() or not all(map(operator.is_, map(now.get, found), found.values())):
            now.clear()
            now.update(found)
    if own.get("forward") is not forward:
        own.pop("forward", None)
        if forward is not None:
            own["forward"] = forward


def _kept(found: Any) -> Any:
    return dict(found) if isinstance(found, dict) else found
