"""The state of a network around a call of a method: modules, attributes, hooks, modes, gradients and flags."""

import contextlib
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Restore the model on exit, also after an exception.

    Restored are each module's class, children, tensors, hooks, mode and all other attributes, also the items of its
    dicts, lists and sets, and each parameter's gradient and flag. Objects inside these are not followed. The values of
    weights and buffers are not kept: the stage compares them after each method.
    """
    modules = [
        module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)
    ]  # its parts are fixed
    parameters = list(model.parameters())
    before = [(module, type(module), dict(vars(module))) for module in modules]
    items = [
        (held, held.copy() if held else None)
        for _, _, attributes in before
        for held in attributes.values()
        if isinstance(held, _CONTAINERS)
    ]
    flags = [(parameter.requires_grad, parameter.grad) for parameter in parameters]
    try:
        yield
    finally:
        for module, kind, attributes in before:
            if type(module) is not kind:
                module.__class__ = kind
            now = vars(module)
            if not _is_same(now, attributes):
                now.clear()
                now.update(attributes)
        for held, kept in items:
            if (held or kept) and not _is_same(held, kept):
                _refill(held, kept)
        for parameter, (flag, grad) in zip(parameters, flags, strict=True):
            if parameter.requires_grad != flag:
                parameter.requires_grad_(flag)
            if parameter.grad is not grad:
                parameter.grad = grad


_CONTAINERS = (dict, list, set)


def _is_same(now: Any, kept: Any) -> bool:
    """Return whether a container holds the same objects as before. None stands for an empty one."""
    if kept is None or len(now) != len(kept):
        return False
    if isinstance(now, dict):
        return now.keys() == kept.keys() and all(map(operator.is_, map(now.get, kept), kept.values()))
    return all(map(operator.is_, now, kept)) if isinstance(now, list) else {*map(id, now)} == {*map(id, kept)}


def _refill(held: Any, kept: Any) -> None:
    """Give a container its items back. It stays the same object, because handles of hooks refer to it."""
    held.clear()
    if kept:
        (held.extend if isinstance(held, list) else held.update)(kept)
