"""Operations of a network with the backward pass of a rule, and the same values as before.

Each backward pass gets and gives changed gradients: the relevance of a tensor is the tensor times its gradient.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def applied(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    """Return the result of a function with a backward pass of its own."""
    result: Tensor = function.apply(*arguments)
    return result


class Ratio(torch.autograd.Function):
    """A function of one tensor whose input takes all relevance: gradient of the input = output / input * gradient.

    An input of 0 takes none.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        y = function(x)
        ctx.ratio = (y / x).nan_to_num_(0.0, 0.0, 0.0)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0] * ctx.ratio, None


class FrozenNorm(torch.autograd.Function):
    """A normalisation whose standard deviation counts as a constant; the mean keeps its gradient.

    normalise: function from x to the output and to the factors by which x, without its mean, is multiplied.
    around: axes of the mean of the reshaped x; None: the normalisation subtracts no mean. grouped: that shape of x.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        normalise: Callable[[Tensor], tuple[Tensor, Tensor]],
        grouped: tuple[int, ...],
        around: tuple[int, ...] | None,
    ) -> Tensor:
        y, ctx.factor = normalise(x)
        ctx.grouped, ctx.around = grouped, around
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (given,) = gradients
        into = given * ctx.factor
        if ctx.around is not None:
            grouped = into.reshape(ctx.grouped)
            into = (grouped - grouped.mean(ctx.around, keepdim=True)).reshape(into.shape)
        return into.to(given.dtype), None, None, None


class Matmul(torch.autograd.Function):
    """A matrix product whose factors take these parts of the relevance: 0, 0.5 or 1."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, part_a: float, part_b: float) -> Tensor:
        ctx.save_for_backward(a if part_b else None, b if part_a else None)
        ctx.parts, ctx.shapes = (part_a, part_b), (a.shape, b.shape)
        return a @ b

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (given,), (a, b), (part_a, part_b) = gradients, ctx.saved_tensors, ctx.parts
        into_a = (_part(given, part_a) @ b.mT).sum_to_size(ctx.shapes[0]) if part_a else None
        into_b = (a.mT @ _part(given, part_b)).sum_to_size(ctx.shapes[1]) if part_b else None
        return into_a, into_b, None, None


class Product(torch.autograd.Function):
    """A bilinear function of two tensors, which take these parts of the relevance: 0, 0.5 or 1."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, function: Callable[[Tensor, Tensor], Tensor], part_a: float, part_b: float
    ) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.function, ctx.parts = function, (part_a, part_b)
        return function(a, b)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        factors = [factor.detach() for factor in ctx.saved_tensors]
        taking = [factor.requires_grad_() for factor, part in zip(factors, ctx.parts, strict=True) if part]
        with torch.enable_grad():
            product = ctx.function(*factors)
        found = iter(torch.autograd.grad(product, taking, gradients[0]))
        return *(part * next(found) if part else None for part in ctx.parts), None, None, None


class TemperedSoftmax(torch.autograd.Function):
    """A softmax whose gradient is taken where the scores are divided by a temperature; the divisor is left out."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, dim: int, temperature: float) -> Tensor:
        ctx.dim, ctx.flatter = dim, (scores / temperature).softmax(dim)
        return scores.softmax(dim)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        given, flatter = gradients[0], ctx.flatter
        return flatter * (given - (flatter * given).sum(ctx.dim, keepdim=True)), None, None


class AbsoluteSum(torch.autograd.Function):
    """A sum whose summands share the relevance of an image by the absolute values of their sums over the image.

    Formula: with R_a = sum of a * gradient over the image, and R_b alike, a takes |R_a| / (|R_a| + |R_b|) of R_a + R_b.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a + b

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (given,), (a, b) = gradients, ctx.saved_tensors
        own_a, own_b = (_by_image(factor * given) for factor in (a, b))
        share = (own_a + own_b) / (own_a.abs() + own_b.abs())
        into = [given * (own.sign() * share).nan_to_num(0.0, 0.0, 0.0) for own in (own_a, own_b)]
        return into[0].sum_to_size(a.shape), into[1].sum_to_size(b.shape)


def _part(gradient: Tensor, part: float) -> Tensor:
    return gradient if part == 1 else part * gradient


def _by_image(values: Tensor) -> Tensor:
    """Return the sum over each image, broadcast to the values."""
    return values.flatten(1).sum(1).reshape(-1, *(1,) * (values.ndim - 1))
