"""Forward passes of a network in evaluation mode: the network itself, or a faster copy with the same output."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from efface.base.shown import shown
from efface.base.types import Images
from efface.models.batch_norm import single_images_repaired
from efface.models.fast_copy import fast_copy, own_tensors
from efface.models.modes import modes_restored

Precision = Literal["fp32", "bf16", "bf16_forced"]
"""Number format of the forward and backward passes. Sums, paths and maps are always float32.

fp32: the default.
bf16: up to twice as fast on a processor that computes in bf16. Measured on a trained ResNet20 with 50 passes for each
    map, the ranks of SmoothGrad and integrated gradients correlate with those of fp32 by 0.995 and 0.996. The ranks of
    the gradient correlate by only 0.955, so bf16 is refused if a map is a single gradient.
bf16_forced: bf16 also for a map that is a single gradient.
"""


_CHECKPOINTING = ("grad_checkpointing", "gradient_checkpointing")
"""Flags of timm's and transformers' modules."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluate the model inside the block: evaluation mode, autograd on, and no gradients of parameters.

    Gradient checkpointing is off inside: it runs layers a second time, without what a method does in them. After the
    block, also after an exception, each module's mode and flags and each parameter's flag are restored.
    """
    modules = list(model.modules())
    own = (parameter for module in modules for parameter in own_tensors(module)[0].values() if parameter is not None)
    flags = [(parameter, parameter.requires_grad) for parameter in own]
    saving = [(module, name) for module in modules for name in _CHECKPOINTING if vars(module).get(name) is True]
    with modes_restored(model):
        try:  # values that are right already are not set again: each costs torch a microsecond or more
            if any(module.training for module in modules):
                model.eval()
            for parameter, flag in flags:
                if flag:
                    parameter.requires_grad_(False)
            for module, name in saving:
                setattr(module, name, False)
            with torch.inference_mode(False), torch.enable_grad(), single_images_repaired():
                yield
        finally:
            for module, name in saving:
                setattr(module, name, True)
            for parameter, flag in flags:
                if parameter.requires_grad != flag:
                    parameter.requires_grad_(flag)


@contextmanager
def evaluating_fast(
    model: nn.Module, images: Images, *, allowed: bool = True, precision: Precision = "fp32", gradients: int = 1
) -> Iterator[nn.Module]:
    """Yield a faster copy of the model inside `evaluating`, for methods that use only the output of the network.

    The copy has folded BatchNorms and convolutions in channels-last order. Each use compares the model with its state
    at the time of the copy. If a weight, a module or a setting of a module has changed, a new copy is made. A model
    with hooks is used itself, because a copy would not call the hooks. The copy costs two copies of the weights.

    allowed: False for a method that uses more than the output; it gets the model itself.
    precision: number format of the passes. With bf16, the output and the gradients are converted to float32.
    gradients: number of gradients that a map is the mean of.
    """
    check_precision(precision, gradients, allowed=allowed)
    with evaluating(model):
        network = fast_copy(model, images) if allowed else model
        yield network if precision == "fp32" else _InBf16(network)


def check_precision(precision: str, gradients: int, *, allowed: bool = True) -> None:
    """Raise ValueError for bf16 if a map is a single gradient, or if the passes belong to another method."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision is {shown(precision)}; expected {', '.join(get_args(Precision))}")
    if precision != "fp32" and not allowed:
        raise ValueError(
            f"precision is {shown(precision)}, but `base` runs the passes: set precision in the base itself"
        )
    if precision == "bf16" and gradients < 2:
        raise ValueError(
            "precision is 'bf16', but the map is a single gradient: in bf16 its ranks correlate with those of fp32 by "
            "only 0.955, because rounding ties and reorders pixels and no mean evens this out; take fp32 or bf16_forced"
        )


class _InBf16(nn.Module):
    """A network whose forward and backward passes are in bf16, and whose output is float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Images) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            logits: Tensor = self.network(images)
        return logits.to(images.dtype)
