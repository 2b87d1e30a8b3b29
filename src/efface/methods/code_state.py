"""The code around a call of a method: classes of the network and functions of torch are afterwards as before."""

import contextlib
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

_NOWHERE = object()


@contextlib.contextmanager
def code_kept(model: nn.Module) -> Iterator[None]:
    """Restore functions that a method replaced, also after an exception.

    The functions are those of the classes of the model's modules, of torch.Tensor, torch and torch.nn.functional. A
    function that a method adds under a new name stays, for a library that it imports may have added it.
    """
    classes = {kind for module in model.modules() for kind in type(module).__mro__ if issubclass(kind, nn.Module)}
    before = [(holder, dict(vars(holder))) for holder in (*classes, torch.Tensor, torch, nn.functional)]
    try:
        yield
    finally:
        for holder, held in before:
            _put_back(holder, held)


def _put_back(holder: Any, held: dict[str, Any]) -> None:
    now = vars(holder)
    if now.keys() == held.keys() and all(map(operator.is_, now.values(), map(held.get, now))):
        return
    now = dict(now)
    for name, value in now.items():
        old = held.get(name, _NOWHERE)
        if old is value or not callable(value):
            continue
        if old is not _NOWHERE:
            setattr(holder, name, old)
        elif isinstance(holder, type) and any(name in vars(base) for base in holder.__mro__[1:]):
            delattr(holder, name)  # it hid a function of a base class
    for name in held.keys() - now.keys():
        setattr(holder, name, held[name])
