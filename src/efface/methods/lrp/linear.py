"""Rules of linear and convolution layers, as changed gradients with respect to the input of the layer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from efface.methods.lrp.rules import LinearRule

STABILIZER = 1e-6
"""Number added to a denominator, with its sign; a sum of positive contributions may be 0."""

Gradients = tuple[Tensor, Tensor | None]
"""Changed gradient of the input, and relevance of the input that is no multiple of it (None: no such relevance)."""


class Convolution(NamedTuple):
    """Settings of a convolution, as torch.convolution takes them."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    transposed: bool
    output_padding: list[int]
    groups: int


@dataclass(frozen=True)
class LinearMap:
    """A linear layer: out = weight * x + bias.

    convolution: settings of a convolution; None for a dense layer, with weight out x in.
    """

    weight: Tensor
    bias: Tensor | None
    convolution: Convolution | None = None

    def __call__(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Return the output of the layer, or that with another weight and bias."""
        if weight is None:
            weight, bias = self.weight, self.bias
        if self.convolution is None:
            return F.linear(x, weight, bias)
        return torch.convolution(x, weight, bias, *self.convolution)

    def back(self, gradient: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        """Return the gradient with respect to an input of this shape, if the layer has this weight."""
        if self.convolution is None:
            return gradient @ weight
        like = gradient.new_empty(1).expand(shape)  # only its shape is read
        only_input = [True, False, False]
        into: Tensor = torch.ops.aten.convolution_backward(gradient, like, weight, None, *self.convolution, only_input)[
            0
        ]
        return into

    def merged(self, scale: Tensor, shift: Tensor) -> "LinearMap":
        """Return this layer and, after it, a multiplication and an addition for each channel, as one layer."""
        if self.convolution is None or not self.convolution.transposed:
            weight = self.weight * scale.reshape(-1, *(1,) * (self.weight.ndim - 1))
        else:  # in, out / groups, ...
            groups = self.convolution.groups
            by_group = self.weight.unflatten(0, (groups, -1))
            factor = scale.reshape(groups, 1, -1, *(1,) * (self.weight.ndim - 2))
            weight = (by_group * factor).flatten(0, 1)
        return replace(self, weight=weight, bias=shift if self.bias is None else self.bias * scale + shift)


class Propagated(torch.autograd.Function):
    """The output of a linear layer, with the backward pass of a rule."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        _extra: Tensor | None,
        layer: LinearMap,
        rule: LinearRule,
        bounds: Any,
        compute: Callable[[], Tensor] | None,
    ) -> Tensor:
        """Run the layer.

        _extra: zeros of the shape of x, whose gradient is the relevance that is no multiple of x.
        bounds: the smallest and the largest input, for z_box.
        compute: function that computes the output, in place of the layer.
        """
        z = layer(x) if compute is None else compute()
        ctx.back = _BACK[rule.kind](x, z, layer, rule, bounds)
        return z

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        into, relevance = ctx.back(gradients[0])
        return into, relevance, None, None, None, None


def stabilised(z: Tensor) -> Tensor:
    """Return a denominator that is not 0."""
    return z + torch.where(z < 0, -STABILIZER, STABILIZER)


def _epsilon(x: Tensor, z: Tensor, layer: LinearMap, rule: LinearRule, _: Any) -> Callable[[Tensor], Gradients]:
    shape, kept = x.shape, None if rule.value == 0 else z.abs() / (z.abs() + rule.value)
    return lambda gradient: (layer.back(gradient if kept is None else gradient * kept, layer.weight, shape), None)


def _gamma(x: Tensor, z: Tensor, layer: LinearMap, rule: LinearRule, _: Any) -> Callable[[Tensor], Gradients]:
    """Return the backward pass of the gamma rule, with one more run of the layer in each direction.

    The positive contributions sum to (w x + |w| |x|) / 2, and the negative ones to (w x - |w| |x|) / 2. Rounding does
    no harm, as each denominator is used only where the output has its sign.
    """
    weight, size, shape, sign = layer.weight, layer.weight.abs(), x.shape, x.sign()
    through, sizes = layer(x, weight), layer(x.abs(), size)
    above = z + rule.value * (through + sizes) / 2
    below = z + rule.value * (through - sizes) / 2
    if layer.bias is not None:
        bias = layer.bias.reshape(-1, *(1,) * (0 if layer.convolution is None else weight.ndim - 2))
        above, below = above + rule.value * bias.clamp(min=0), below + rule.value * bias.clamp(max=0)
    share = torch.where(z > 0, z / stabilised(above), z / stabilised(below))
    signed = torch.where(z > 0, share, -share)

    def back(gradient: Tensor) -> Gradients:
        plain = layer.back(gradient * share, weight, shape)
        raised = plain + sign * layer.back(gradient * signed, size, shape)
        return plain + rule.value / 2 * raised, None

    return back


def _alpha_beta(x: Tensor, z: Tensor, layer: LinearMap, rule: LinearRule, _: Any) -> Callable[[Tensor], Gradients]:
    bias = layer.bias if rule.bias else None
    parts = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
    offsets = (None, None) if bias is None else (bias.clamp(min=0), bias.clamp(max=0))
    alpha = 1.0 if rule.kind == "z_plus" else rule.value
    above, below = _by_sign(x, layer, parts, offsets, only_above=alpha == 1)
    beta = None if below is None else (1 - alpha) * z / stabilised(below)
    return _signed(x, layer, parts, alpha * z / stabilised(above), beta)


def _by_sign(
    x: Tensor,
    layer: LinearMap,
    weights: tuple[Tensor, Tensor],
    offsets: tuple[Tensor | None, Tensor | None],
    *,
    only_above: bool = False,
) -> Any:
    """Return the outputs with weights that raise positive contributions, and with those that raise negative ones."""
    up, down = weights
    positive, negative = x.clamp(min=0), x.clamp(max=0)
    mixed = bool((x < 0).any())
    above = layer(positive, up, offsets[0])
    below = None if only_above else layer(positive, down, offsets[1])
    if mixed:
        above = above + layer(negative, down)
        below = None if below is None else below + layer(negative, up)
    return above, below


def _signed(
    x: Tensor, layer: LinearMap, weights: tuple[Tensor, Tensor], above: Tensor, below: Tensor | None
) -> Callable[[Tensor], Gradients]:
    """Return the backward pass of a rule that weights positive and negative contributions differently.

    above: factor of the gradient for positive contributions. below: for negative ones; None: they take none.
    """
    up, down = weights
    shape, negative = x.shape, x < 0
    mixed = bool(negative.any())

    def back(gradient: Tensor) -> Gradients:
        first = gradient * above
        into = layer.back(first, up, shape)
        against = layer.back(first, down, shape) if mixed else None
        if below is not None:
            second = gradient * below
            into = into + layer.back(second, down, shape)
            against = None if against is None else against + layer.back(second, up, shape)
        return into if against is None else torch.where(negative, against, into), None

    return back


def _flat(x: Tensor, z: Tensor, layer: LinearMap, rule: LinearRule, _: Any) -> Callable[[Tensor], Gradients]:
    is_flat = rule.kind == "flat"
    weight = torch.ones_like(layer.weight) if is_flat else layer.weight**2
    bias = None if is_flat or layer.bias is None else layer.bias**2
    shape, share = x.shape, z / stabilised(layer(torch.ones_like(x), weight, bias))
    return lambda gradient: (gradient.new_zeros(shape), layer.back(gradient * share, weight, shape))


def _box(x: Tensor, z: Tensor, layer: LinearMap, _: LinearRule, bounds: Any) -> Callable[[Tensor], Gradients]:
    shape, (low, high) = x.shape, (bound.expand_as(x) for bound in bounds)
    up, down = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
    bias = layer.bias
    least = layer(low, up, None if bias is None else bias.clamp(min=0))
    most = layer(high, down, None if bias is None else bias.clamp(max=0))
    share = z / stabilised(z - least - most)

    def back(gradient: Tensor) -> Gradients:
        shared = gradient * share
        ends = low * layer.back(shared, up, shape) + high * layer.back(shared, down, shape)
        return layer.back(shared, layer.weight, shape), -ends

    return back


_BACK: dict[str, Callable[..., Callable[[Tensor], Gradients]]] = {
    "epsilon": _epsilon,
    "gamma": _gamma,
    "z_plus": _alpha_beta,
    "alpha_beta": _alpha_beta,
    "flat": _flat,
    "w_square": _flat,
    "z_box": _box,
}
