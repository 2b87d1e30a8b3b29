"""Bias of a module: its output minus its derivative times its input.

convolution, linear layer: the bias parameter.
BatchNorm in eval mode: beta - mean * gamma / sqrt(variance + eps).
the network's own normalisation: -mean / std.
ReLU, maximum: 0.
other non-linearities, LayerNorm: a bias that depends on the image.
"""

from typing import Any

import torch
from torch import Tensor, nn

from efface.models.normalise import Normalise

_AFFINE = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, Normalise),
)
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_WITHOUT = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU)
_WITHOUT_FILES = {f"torch.nn.modules.{name}" for name in ("pooling", "dropout", "flatten")}
_ELEMENTWISE = (
    *(nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.GELU, nn.Mish, nn.ELU, nn.CELU, nn.SELU),
    *(nn.Sigmoid, nn.Tanh, nn.Softplus),
)


def one(_name: str, module: nn.Module, _inputs: tuple[Any, ...], _keywords: dict[str, Any]) -> Tensor | None:
    """Return 1 for a module with a bias parameter, else None."""
    own = getattr(module, "bias", None)
    return own.new_ones(()) if isinstance(own, Tensor) else None


def implicit_bias(name: str, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor | None:
    """Return a module's output minus its derivative times its input; None where this is always 0."""
    if isinstance(module, _WITHOUT) or type(module).__module__ in _WITHOUT_FILES:
        return None
    if not inputs or not all(isinstance(value, Tensor) and value.is_floating_point() for value in inputs):
        return None  # such as an embedding
    if isinstance(module, _BATCH_NORM) and module.running_mean is None:
        raise ValueError(
            f"layer {name!r} ({type(module).__name__}) has no running statistics, so its bias depends on the other "
            "images of the batch; expected track_running_stats=True"
        )
    if isinstance(module, _AFFINE):
        own = isinstance(module, (*_BATCH_NORM, Normalise)) or module.bias is not None
        return module.forward(torch.zeros_like(inputs[0][:1])) if own else None
    points = [value.detach().requires_grad_() for value in inputs]
    output = module.forward(*(point.clone() for point in points), **keywords)  # clones: forward may work in place
    if not isinstance(output, Tensor) or not output.requires_grad:
        return None
    linear = _derivative(name, module, points, output)
    output = output.detach()
    rounding = 16 * torch.finfo(output.dtype).eps * output.abs().amax(tuple(range(1, output.ndim)), keepdim=True)
    bias = output - linear
    return bias.masked_fill(bias.abs() <= rounding, 0.0)  # psi would scale rounding errors to 1


def _derivative(name: str, module: nn.Module, points: list[Tensor], output: Tensor) -> Tensor:
    """Return a module's derivative at the points, times the points."""
    if isinstance(module, _ELEMENTWISE):  # cheaper, and torch lacks the second derivative of Hardsigmoid
        (slope,) = torch.autograd.grad(output.sum(), points)
        return slope * points[0].detach()
    # the backward pass is linear in `way`, so its derivative by `way` is the forward derivative
    way = torch.zeros_like(output, requires_grad=True)
    try:
        back = torch.autograd.grad((output * way).sum(), points, create_graph=True, materialize_grads=True)
        moved = torch.stack(
            [(gradient * point.detach()).sum() for gradient, point in zip(back, points, strict=True)]
        ).sum()
        if not moved.requires_grad:  # a step function has derivative 0
            return torch.zeros_like(way)
        (linear,) = torch.autograd.grad(moved, way)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as problem:
        raise ValueError(
            f"layer {name!r} ({type(module).__name__}) has a bias that needs the layer's second derivative, which "
            f"fails: {problem}; use simple_full_grad, which needs none"
        ) from problem
    return linear
