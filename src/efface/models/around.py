"""A module before a network and a function after it, while the network keeps its class's name and its own names."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

NORMALISE = ("normalise", "normalise_images")
"""Names of the module that normalises the images: the first that the network does not have."""


def normalised(network: nn.Module, normalise: nn.Module) -> nn.Module:
    """Return the network with this module in front, under the name `normalise`. Other names do not change.

    In an `nn.Sequential`, whose layers have numbers, the module has no name and is none of the layers.

    The identity adds nothing.
    """
    if isinstance(normalise, nn.Identity):
        return network
    return around(network, before=normalise)


class _Around:
    """A network with a module before its forward and a function after it. Mixed into a network's own class."""

    def forward(self, *arguments: Any, **settings: Any) -> Any:
        held = vars(self)
        before, after = held["_modules"].get(held.get("_normalises")) or held.get("_before"), held.get("_after")
        if before is not None:
            images, *others = arguments
            arguments = (before.to(images.device)(images), *others)
        answer = super().forward(*arguments, **settings)  # type: ignore[misc]
        return answer if after is None else after(answer)

    def __reduce_ex__(self, _: Any) -> Any:
        return _blank, (type(self).__mro__[2],), vars(self)


class _Outside(nn.Module):
    """A network whose class or forward cannot be changed, with a module before it and a function after it."""

    def __init__(self, network: nn.Module, before: nn.Module | None, after: Callable[[Any], Tensor] | None) -> None:
        super().__init__()
        self.add_module(NORMALISE[0], before)
        self.network, self.after = network, after

    def forward(self, images: Tensor) -> Any:
        before = getattr(self, NORMALISE[0])
        answer = self.network(images if before is None else before(images))
        return answer if self.after is None else self.after(answer)


def around(
    network: nn.Module, before: nn.Module | None = None, after: Callable[[Any], Tensor] | None = None
) -> nn.Module:
    """Return the network with another forward; see `_Around`. Its class keeps its name."""
    if isinstance(network, torch.jit.ScriptModule) or "forward" in vars(network):
        return _Outside(network, before, after)
    if not isinstance(network, _Around):
        network.__class__ = _kind(type(network))
    if before is not None and isinstance(network, nn.Sequential):  # its children have numbers, which must stay
        vars(network)["_before"] = before
    elif before is not None:
        name = next((candidate for candidate in NORMALISE if not hasattr(network, candidate)), None)
        if name is None:
            return _Outside(network, before, after)
        modules = dict(network._modules)  # noqa: SLF001  the first layer stands first
        network._modules.clear()  # noqa: SLF001
        network.add_module(name, before)
        network._modules.update(modules)  # noqa: SLF001
        vars(network)["_normalises"] = name
    if after is not None:
        vars(network)["_after"] = after
    return network


_KINDS: dict[type, Any] = {}


def _kind(kind: type) -> Any:
    """Return the subclass of a network's class that has `_Around`'s forward; always the same one."""
    if kind not in _KINDS:
        names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        _KINDS[kind] = type(kind.__name__, (_Around, kind), names)
    return _KINDS[kind]


def _blank(kind: type[nn.Module]) -> Any:
    """Return an instance of the subclass without any attributes, for copies and pickles."""
    made = _kind(kind)
    return made.__new__(made)
