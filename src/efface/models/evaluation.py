"""Forward passes of a network in evaluation mode: the network itself, or a faster copy with the same output."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from efface.models.fast_copy import fast_copy, own_tensors
from efface.models.modes import modes_restored
from efface.types import Images

Precision = Literal["fp32", "bf16", "bf16_forced"]
"""What the passes of the network compute in: sums, ways and maps are float32 whatever it is.

bf16: up to twice as fast where the processor computes in it. Measured on a trained ResNet20, 50 passes a map: the ranks
    of SmoothGrad and integrated gradients correlate with those of fp32 by 0.995 and 0.996, those of the gradient by
    0.955 only; so it is refused where a map is one gradient.
bf16_forced: bf16 there, too.
"""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within: evaluation mode, no gradients of parameters (nobody asks for them), autograd on whatever the caller set.

    Afterwards, also after an exception, every module's mode and every parameter's flag is as before.
    """
    modules = list(model.modules())
    own = (each for module in modules for each in own_tensors(module)[0].values() if each is not None)
    flags = [(parameter, parameter.requires_grad) for parameter in own]
    with modes_restored(model):
        try:  # what is so already is not set again: torch takes a microsecond and more for each
            if any(module.training for module in modules):
                model.eval()
            for parameter, flag in flags:
                if flag:
                    parameter.requires_grad_(False)
            with torch.inference_mode(False), torch.enable_grad():
                yield
        finally:
            for parameter, flag in flags:
                if parameter.requires_grad != flag:
                    parameter.requires_grad_(flag)


@contextmanager
def evaluating_fast(
    model: nn.Module, images: Images, *, allowed: bool = True, precision: Precision = "fp32", gradients: int = 1
) -> Iterator[nn.Module]:
    """`evaluating`, with a network that answers as the model does: for methods that ask for nothing but its answers.

    Its BatchNorms are folded and its convolutions work on channels last. It is made once for a model and made again
    when a weight, a module or a module's setting has changed, however that was done, which each use compares; a model
    with hooks is used as it is, for they would not be called. Costs two copies of the weights.

    allowed: False for a method that does ask for more: then the model itself.
    precision: of its passes; bf16 answers are float32 again, as are the gradients that come out.
    gradients: how many a map is the mean of.
    """
    check_precision(precision, gradients, allowed=allowed)
    with evaluating(model):
        network = fast_copy(model, images) if allowed else model
        yield network if precision == "fp32" else _InBf16(network)


def check_precision(precision: str, gradients: int, *, allowed: bool = True) -> None:
    """Refuse bf16 where a map is a single gradient, or where the passes are another method's."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision is {precision!r}; expected {', '.join(get_args(Precision))}")
    if precision != "fp32" and not allowed:
        raise ValueError(f"precision is {precision!r}, but the passes are those of `base`: set it in the base itself")
    if precision == "bf16" and gradients < 2:
        raise ValueError(
            "precision is 'bf16', but the map is a single gradient: in bf16 its ranks correlate with those of fp32 by "
            "0.955 only, for rounding ties and reorders pixels and no mean evens it out; take fp32, or bf16_forced"
        )


class _InBf16(nn.Module):
    """A network whose passes are in bf16, there and back, and whose answers are float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Images) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            answers: Tensor = self.network(images)
        return answers.to(images.dtype)
