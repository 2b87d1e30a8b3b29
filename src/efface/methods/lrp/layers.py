"""Linear layers, convolutions, matrix products and BatchNorm with the backward pass of a rule."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from efface.methods.lrp.functions import Matmul, Product, Ratio, applied
from efface.methods.lrp.linear import Convolution, LinearMap
from efface.methods.lrp.mode import Handler, Propagation, bound, by_function, depends

_ORDER = {
    False: "input weight bias stride padding dilation groups",
    True: "input weight bias stride padding output_padding groups dilation",
}
_DEFAULTS = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1, "output_padding": 0}


def _linear(mode: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = {"bias": None} | bound("input weight bias", args, kwargs)
    if not depends(given["input"]) or depends(given["weight"]):
        return func(*args, **kwargs)
    return mode.layer(given["input"], LinearMap(given["weight"], given["bias"]))


def _convolution(transposed: bool, mode: Propagation, func: Any, args: Any, kwargs: Any) -> Any:  # noqa: FBT001
    given = _DEFAULTS | bound(_ORDER[transposed], args, kwargs)
    x, weight = given["input"], given["weight"]
    axes = weight.ndim - 2
    if not depends(x) or depends(weight) or x.ndim != weight.ndim:
        return func(*args, **kwargs)
    each = {name: _each(given[name], axes) for name in ("stride", "dilation", "output_padding")}
    if isinstance(given["padding"], str):
        x, given["padding"] = _padded(x, weight, each["dilation"], given["padding"]), 0
    settings = Convolution(
        each["stride"],
        _each(given["padding"], axes),
        each["dilation"],
        transposed,
        each["output_padding"],
        given["groups"],
    )
    return mode.layer(x, LinearMap(weight, given["bias"], settings))


def _each(value: Any, axes: int) -> list[int]:
    """Return a number for each axis."""
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def _padded(x: Tensor, weight: Tensor, dilation: list[int], padding: str) -> Tensor:
    """Return the input, padded as torch pads it for `same`."""
    widths: list[int] = []
    for size, step in zip(reversed(weight.shape[2:]), reversed(dilation), strict=True):
        total = step * (size - 1) if padding == "same" else 0
        widths += [total // 2, total - total // 2]
    return F.pad(x, widths)


def _matmul(mode: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    a, b = args if len(args) == 2 else tuple(bound("input mat2", args, kwargs).values())
    if func is Tensor.__rmatmul__:
        a, b = b, a
    if min(a.ndim, b.ndim) < 2:
        return func(*args, **kwargs)
    if depends(a, b) or "weights" in (mode.mark_of(a), mode.mark_of(b)):
        return _product(mode, a, b, torch.matmul)
    if depends(a) and b.ndim == 2:
        return mode.layer(a, LinearMap(b.mT, None))
    if depends(b) and a.ndim == 2:
        return mode.layer(b.mT, LinearMap(a, None)).mT
    return func(*args, **kwargs)


def _addmm(mode: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(args) != 3 or kwargs or not depends(args[1]) or depends(args[0]) or depends(args[2]):
        return func(*args, **kwargs)
    bias, a, b = args
    return mode.layer(a, LinearMap(b.mT, bias))


def _einsum(mode: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    equation, *operands = args
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = list(operands[0])
    if len(operands) != 2 or not depends(*operands):
        return func(*args, **kwargs)
    return _product(mode, operands[0], operands[1], partial(func, equation))


def _product(mode: Propagation, a: Tensor, b: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return a matrix product of two tensors that depend on the image, or of one and of attention weights."""
    marks = [mode.mark_of(a), mode.mark_of(b)]
    weighs = marks.count("weights") == 1
    if weighs and mode.keeps_attention:
        second = marks[0] != "weights"
        mode.attentions.append((b if second else a, second and function is torch.matmul))
    if mode.rules.products == "gradient":
        return function(a, b)
    parts = (0.5, 0.5)
    if weighs and mode.rules.products == "weighted":
        parts = (0.0, 1.0) if marks[0] == "weights" else (1.0, 0.0)
    a, b = (factor if part else factor.detach() for factor, part in zip((a, b), parts, strict=True))
    return applied(Matmul, a, b, *parts) if function is torch.matmul else applied(Product, a, b, function, *parts)


def _batch_norm(mode: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given: dict[str, Any] = {"weight": None, "bias": None, "training": False, "eps": 1e-5}
    given |= bound("input running_mean running_var weight bias training momentum eps", args, kwargs)
    x, mean, var, weight, bias = (given[name] for name in ("input", "running_mean", "running_var", "weight", "bias"))
    if not depends(x):
        return func(*args, **kwargs)
    if given["training"] or mean is None or var is None:
        raise ValueError(
            f"{mode.title}: a BatchNorm takes its mean and variance from the batch, so the relevance of an image would "
            "depend on the other images; expected running statistics: train the network with track_running_stats"
        )
    if mode.rules.norms == "ratio":
        more = {name: value for name, value in given.items() if name != "input"}
        return applied(Ratio, x, lambda x: F.batch_norm(x, **more))
    scale = (var + given["eps"]).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale
    merged = mode.with_norm(x, scale, shift, lambda: func(*args, **kwargs))
    return func(*args, **kwargs) if merged is None else merged


HANDLERS: dict[Any, Handler] = {
    **by_function(_linear, "linear"),
    **by_function(partial(_convolution, False), "conv1d", "conv2d", "conv3d"),
    **by_function(partial(_convolution, True), "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    **by_function(_matmul, "matmul", "mm", "bmm", "__matmul__", "__rmatmul__"),
    **by_function(_addmm, "addmm"),
    **by_function(_einsum, "einsum"),
    **by_function(_batch_norm, "batch_norm"),
}
"""The replacements of torch functions, by function."""
