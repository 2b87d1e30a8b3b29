"""A watch on the hooks that a method registers: a call whose hooks never run has not seen what it needs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from efface.models.modes import evaluate, modes_restored

REGISTER = (
    *("register_forward_hook", "register_forward_pre_hook", "register_backward_hook"),
    *("register_full_backward_hook", "register_full_backward_pre_hook"),
)
"""Methods of a module that register a hook on it."""

look_in = nn.Module.register_forward_hook
"""Registers a forward hook that no watch counts, as `look_in(module, hook)`: for efface's own looks at a network."""

look_before = nn.Module.register_forward_pre_hook
"""The same for a hook that runs before the forward."""


@dataclass
class HookWatch:
    """Record of the hooks of a call.

    modules: kinds of the modules on which hooks were registered, in order. ran: how often any of the hooks ran.
    """

    modules: list[str] = field(default_factory=list)
    ran: int = 0

    @property
    def unheard(self) -> bool:
        """Return True if hooks were registered and none of them ran."""
        return bool(self.modules) and not self.ran


@contextmanager
def watched_hooks() -> Iterator[HookWatch]:
    """Count the hooks that are registered on modules inside the block, and how often they run."""
    watch, plain = HookWatch(), {name: getattr(nn.Module, name) for name in REGISTER}

    def counting(register: Callable[..., Any]) -> Callable[..., Any]:
        def registered(self: nn.Module, hook: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
            def counted(*given: Any, **named: Any) -> Any:
                watch.ran += 1
                return hook(*given, **named)

            handle = register(self, counted, *arguments, **settings)
            watch.modules.append(type(self).__name__)
            return handle

        return registered

    for name, register in plain.items():
        setattr(nn.Module, name, counting(register))
    try:
        yield watch
    finally:
        for name, register in plain.items():
            setattr(nn.Module, name, register)


def see_calls(model: nn.Module, images: Tensor, see: Callable[[str, nn.Module, Any], None]) -> None:
    """Run the model once, in evaluation mode and without gradients, and show each call of a module as it finishes.

    see: function that gets the module's name, the module and its output. The model itself comes last, with the name "".
    """
    handles = [
        look_in(module, lambda called, _, output, name=name: see(name, called, output))
        for name, module in model.named_modules()
    ]
    run_once(model, images, handles)


def run_once(model: nn.Module, images: Tensor, handles: Sequence[RemovableHandle]) -> None:
    """Run the model once, in evaluation mode and without gradients, with these hooks, and remove them."""
    try:
        with modes_restored(model), torch.no_grad():
            evaluate(model)
            model(images)
    finally:
        for handle in handles:
            handle.remove()


def is_scripted(model: nn.Module) -> bool:
    """Return True if torch.jit made the network or a part of it: its modules do not run, so that no hook does."""
    return any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())
