"""Modes of a network's modules: training or evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def evaluate(model: nn.Module) -> None:
    """Set evaluation mode if a module is in training mode. Nothing is set without need: it costs a walk."""
    if any(module.training for module in model.modules()):
        model.eval()


@contextmanager
def modes_restored(model: nn.Module) -> Iterator[None]:
    """Restore the mode of each module after the block, also after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            if module.training != mode:  # setting a mode costs torch a microsecond or more, even if nothing changes
                module.training = mode
