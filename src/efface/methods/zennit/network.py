"""Facts about a network that rules need: the layers that ran, the BatchNorm after each, the first layer's input."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from efface.base.types import Images
from efface.models.fast_copy import normalises_channels
from efface.models.hook_watch import look_before, look_in
from efface.models.scores import logits_of

Linear = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    nn.Linear,
)
BatchNorm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Traced:
    """Record of one forward pass of one image.

    ran: the modules by name, in the order in which they started.
    merges: (name of a linear layer, name of the BatchNorm that reads its output), where each runs once.
    logits: output of the network.
    """

    ran: dict[str, nn.Module]
    merges: list[tuple[str, str]]
    logits: Tensor

    @property
    def first(self) -> nn.Module:
        """Return the convolution or linear layer that runs first."""
        return next(module for module in self.ran.values() if isinstance(module, Linear))


def traced(model: nn.Module, image: Images) -> Traced:
    """Run one image and return the record. ValueError: no convolution and no linear layer runs."""
    names = {module: name for name, module in model.named_modules()}
    ran: list[nn.Module] = []
    outputs: dict[int, tuple[nn.Module, Any]] = {}  # keeps the tensors alive, so that their ids stay unique
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        ran.append(module)
        linear = outputs[id(inputs[0])][0] if inputs and id(inputs[0]) in outputs else None
        if isinstance(module, BatchNorm) and linear is not None and normalises_channels(linear, inputs[0]):
            pairs.append((linear, module))

    def after(module: nn.Module, _inputs: object, output: Any) -> None:
        if isinstance(module, Linear):
            outputs[id(output)] = (module, output)

    handles = [look_before(module, before) for module in names]
    handles += [look_in(module, after) for module in names]
    try:
        with torch.no_grad():
            logits = logits_of(model, image)
    finally:
        for handle in handles:
            handle.remove()
    if not any(isinstance(module, Linear) for module in ran):
        raise ValueError(f"zennit.attribute: no convolution or linear layer runs in {type(model).__name__}")
    times = Counter(ran)
    merges = [
        (names[linear], names[norm])
        for linear, norm in pairs
        if times[linear] == times[norm] == 1 and None not in (norm.weight, norm.running_mean)
    ]
    return Traced({names[module]: module for module in ran}, merges, logits)


@contextmanager
def collecting_input(first: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list that collects the layer's input whenever it runs, before any other hook sees the input."""
    read: list[Tensor] = []
    handle = first.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]), prepend=True)
    try:
        yield read
    finally:
        handle.remove()


def bounds(model: nn.Module, first: nn.Module, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest input of the first layer, given the darkest and the brightest flat image."""
    with collecting_input(first) as read, torch.no_grad():
        model(low)
        model(high)
    return torch.minimum(*read), torch.maximum(*read)
