"""Networks without wrappers of torch, inside which hooks of methods do not run."""

from typing import Any

import torch
from torch import nn


def unwrapped(network: nn.Module) -> tuple[nn.Module, list[str]]:
    """Return the network without torch.compile and DataParallel, under which hooks do not run, and what was done.

    The parameters are the same tensors. Compiled and parallel modules inside the network are replaced as well.
    """
    changes = dict[str, None]()

    def plain(module: nn.Module) -> nn.Module:
        while (inner := _inner(module)) is not None:
            kind = {"OptimizedModule": "torch.compile"}.get(type(module).__name__, type(module).__name__)
            changes[f"{kind} is taken off the network, because hooks of methods do not run inside it"] = None
            module = inner
        if (own := vars(module).get("forward")) is not None and hasattr(own, "_torchdynamo_orig_callable"):
            _put_forward(module, own._torchdynamo_orig_callable)  # noqa: SLF001  torch has no public name for it
            changes["torch.compile is taken off the network, because hooks of methods do not run inside it"] = None
        if getattr(module, "_compiled_call_impl", None) is not None:
            module._compiled_call_impl = None  # noqa: SLF001  torch has no public way back from `Module.compile`
            changes["torch.compile is taken off the network, because hooks of methods do not run inside it"] = None
        return module

    network = plain(network)
    for module in [] if isinstance(network, torch.jit.ScriptModule) else list(network.modules()):
        for name, child in list(module.named_children()):
            if (other := plain(child)) is not child:
                setattr(module, name, other)
    return network, list(changes)


def _put_forward(module: nn.Module, forward: Any) -> None:
    """Give a module this forward; none of its own if it is that of its class."""
    del module.forward
    if getattr(forward, "__self__", None) is not module or forward.__func__ is not type(module).forward:
        module.forward = forward


def _inner(module: nn.Module) -> nn.Module | None:
    """Return the module inside a wrapper of torch; None for any other module."""
    held = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
    name = held.get(type(module).__name__)
    inner = getattr(module, name, None) if name and type(module).__module__.startswith("torch.") else None
    return inner if isinstance(inner, nn.Module) else None
