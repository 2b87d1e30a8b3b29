"""The state of a network around a call of a method: modules, hooks, modes, gradients and flags."""

import contextlib
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
        (each, type(each), {name: dict(vars(each)[name]) for name in _PARTS}, vars(each).get("forward"))
        for each in modules
    ]
    hooks = [{name: _kept(found) for name, found in vars(each).items() if "_hook" in name} for each in modules]
    flags = [(each.requires_grad, each.grad) for each in parameters]
    with modes_restored(model):
        try:
            yield
        finally:
            for each, kind, held, forward in parts:
                _put_back(each, kind, held, forward)
            for each, kept in zip(modules, hooks, strict=True):
                for name, found in kept.items():
                    if isinstance(found, dict):  # keep the same dict object, because hook handles refer to it
                        if found or vars(each)[name]:
                            vars(each)[name].clear()
                            vars(each)[name].update(found)
                    else:
                        vars(each)[name] = found
            for parameter, (flag, grad) in zip(parameters, flags, strict=True):
                if parameter.requires_grad != flag:
                    parameter.requires_grad_(flag)
                if parameter.grad is not grad:
                    parameter.grad = grad


_PARTS = ("_modules", "_parameters", "_buffers")


def _put_back(module: nn.Module, kind: type, held: dict[str, dict[str, Any]], forward: Any) -> None:
    """Give a module its class, its children, its tensors and its forward back."""
    own = vars(module)
    if type(module) is not kind:
        module.__class__ = kind
    for name, found in held.items():
        if own[name].keys() != found.keys() or any(own[name][key] is not each for key, each in found.items()):
            own[name].clear()
            own[name].update(found)
    if own.get("forward") is not forward:
        own.pop("forward", None)
        if forward is not None:
            own["forward"] = forward


def _kept(found: Any) -> Any:
    return dict(found) if isinstance(found, dict) else found
