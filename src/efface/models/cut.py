"""Which ways lead from the image to the logits: through one layer, or past it."""

from typing import Any

import torch
from torch import Tensor, nn

from efface.base.types import Images
from efface.models.evaluation import evaluating
from efface.models.hook_watch import look_in
from efface.models.scores import logits_of


def is_cut(model: nn.Module, images: Images, name: str) -> bool:
    """Return True if no way from the image to the logits passes by the layer, as a residual sum or a branch does.

    A map of such a layer accounts for the whole network. The answer is also True if no gradient of the logits reaches
    the image in any way. It costs a forward and a backward pass of the first image.
    """

    def ended(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
        return output.detach().clone() if isinstance(output, Tensor) else None  # later modules may work in place

    handle = look_in(model.get_submodule(name), ended)
    try:
        with evaluating(model):
            image = images[:1].detach().clone().requires_grad_()
            logits = logits_of(model, image)
            if not logits.requires_grad:
                return True
            return torch.autograd.grad(logits.sum(), image, allow_unused=True)[0] is None
    finally:
        handle.remove()


def read_by(model: nn.Module, images: Images, name: str) -> set[str]:
    """Return the names of the layers with whose output a layer computes. It costs a pass of the first image."""
    outputs: dict[str, Tensor] = {}

    def leave(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            outputs[name] = output

    handles = [
        look_in(module, lambda _module, _inputs, output, name=each: leave(name, output))
        for each, module in model.named_modules()
    ]
    try:
        with evaluating(model):
            logits_of(model, images[:1].detach().clone().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    found = torch.autograd.grad(outputs[name].sum(), [*outputs.values()], allow_unused=True)
    return {each for each, gradient in zip(outputs, found, strict=True) if gradient is not None}
