"""Activations, gates, sums, products and quotients of activations, with the backward pass of a rule."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from efface.methods.lrp.functions import AbsoluteSum, Product, Ratio, applied
from efface.methods.lrp.mode import CHANGING, PLACES, Handler, Propagation, bound, by_function, depends

_OWN = ("relu", "leaky_relu", "rrelu", "norm", "vector_norm", "var", "std")
"""Functions that keep their gradient: it gives the input all relevance, or the graph is refused if relevance passes."""
_RATIO = (
    *("gelu", "silu", "mish", "hardswish", "elu", "selu", "celu", "softsign", "tanhshrink", "softplus", "logsigmoid"),
    *("hardtanh", "relu6", "softshrink", "hardshrink", "clamp", "clip", "clamp_min", "clamp_max", "threshold"),
    *("square", "pow", "float_power", "sqrt", "local_response_norm", "tanh"),
    *("sigmoid", "hardsigmoid", "erf", "rsqrt", "reciprocal"),
)
_MARKS = {"tanh": "tanh"} | dict.fromkeys(
    ("sigmoid", "hardsigmoid", "erf", "rsqrt", "reciprocal", "norm", "vector_norm", "var", "std"), "gate"
)
_Arguments = tuple[Any, ...]
_Keywords = dict[str, Any]


def _activation(  # the first three are bound for each function
    name: str, plain: Callable[..., Any], names: str, mode: Propagation, func: Any, args: _Arguments, kwargs: _Keywords
) -> Any:
    """Return an activation.

    name: its name. plain: the function that does not work in place.
    names: arguments of the function in order, if one of them is `inplace`.
    """
    changes = func in CHANGING
    if names:
        given = bound(names, args, kwargs)
        changes, args, kwargs = given.pop("inplace", False), (given.pop("input"),), given
    elif not args:
        args, kwargs = (kwargs["input"],), {key: value for key, value in kwargs.items() if key != "input"}
    x, *rest = args
    by_ratio = name in _RATIO and mode.rules.activations == "ratio"
    if changes and not by_ratio:
        mode.forget(x)
        return mode.mark(func(x, *rest, **(kwargs | {"inplace": True} if names else kwargs)), _MARKS.get(name, ""))
    if by_ratio and depends(x) and not any(map(depends, (*rest, *kwargs.values()))):
        result = applied(Ratio, x, lambda x: plain(x, *rest, **kwargs))
    else:
        result = plain(x, *rest, **kwargs)
    if changes:
        mode.forget(x)
        result = x.copy_(result)
    return mode.mark(result, _MARKS.get(name, ""))


def _arguments(func: Any) -> str:
    """Return the arguments of a function that has an argument `inplace`, in order; "" for other functions."""
    try:
        names = list(inspect.signature(func).parameters)
    except (TypeError, ValueError):  # functions in C have no signature
        return ""
    return " ".join(names) if "inplace" in names else ""


def _power(mode: Propagation, _: Any, args: _Arguments, kwargs: _Keywords) -> Any:
    return _activation("pow", torch.pow, "", mode, torch.pow, args, kwargs)


def _gated(mode: Propagation, _: Any, args: _Arguments, kwargs: _Keywords) -> Any:
    given = {"dim": -1} | bound("input dim", args, kwargs)
    with mode:
        signal, gate = given["input"].chunk(2, given["dim"])
        return signal * gate.sigmoid()


def _times(mode: Propagation, func: Any, args: _Arguments, kwargs: _Keywords) -> Any:
    a, b = args if len(args) == 2 else tuple(bound("input other", args, kwargs).values())
    if not depends(a, b) or mode.rules.products == "gradient":
        return _carried(mode, func, (a, b))
    weighs = [_weighs(mode, each) for each in (a, b)]
    if weighs[0] == weighs[1]:
        result = applied(Product, _kept(func, a), b, torch.mul, 0.5, 0.5)
    else:
        result = a.detach() * b if weighs[0] else a * b.detach()
    return _placed(mode, func, a, result)


def _weighs(mode: Propagation, factor: Tensor) -> bool:
    """Return True if a factor counts as a weight, which takes no relevance."""
    mark = mode.mark_of(factor)
    return (mark == "gate" and mode.rules.gates) or (mark == "weights" and mode.rules.products == "weighted")


def _divided(mode: Propagation, func: Any, args: _Arguments, kwargs: _Keywords) -> Any:
    if len(args) != 2 or kwargs or not depends(*args) or mode.rules.products == "gradient":
        return _carried(mode, func, args, kwargs)
    a, b = args
    mark = mode.mark_of(a)
    return mode.mark(_placed(mode, func, a, a / b.detach()), mark)


def _inverse(mode: Propagation, func: Any, args: _Arguments, kwargs: _Keywords) -> Any:
    return mode.mark(func(*args, **kwargs), "gate")  # the graph is refused if relevance passes


def _plus(mode: Propagation, func: Any, args: _Arguments, kwargs: _Keywords) -> Any:
    if len(args) != 2 or kwargs or not depends(*args) or mode.rules.sums == "gradient":
        return _carried(mode, func, args, kwargs, plus=True)
    a, b = args
    second = -b if "sub" in func.__name__ else b
    return _placed(mode, func, a, applied(AbsoluteSum, _kept(func, a), second))


def _minus(mode: Propagation, func: Any, args: _Arguments, kwargs: _Keywords) -> Any:
    return _carried(mode, func, args, kwargs, plus=True)


def _carried(
    mode: Propagation, func: Any, args: _Arguments, kwargs: _Keywords | None = None, *, plus: bool = False
) -> Any:
    """Return the result of the function itself. With a number or a weight, a gate stays a gate.

    plus: the function adds. A tanh plus a number is a gate.
    """
    factors = [each for each in args if depends(each)]
    mark = mode.mark_of(factors[0]) if len(factors) == 1 else ""
    if func in CHANGING:
        mode.forget(args[0])
    result = func(*args, **(kwargs or {}))
    return mode.mark(result, "gate" if plus and mark == "tanh" else mark)


def _kept(func: Any, a: Tensor) -> Tensor:
    """Return a tensor whose values stay when the function has changed `a` in place."""
    return a.clone() if func in CHANGING else a


def _placed(mode: Propagation, func: Any, a: Tensor, result: Tensor) -> Tensor:
    """Return the result, in the place of `a` if the function works in place."""
    if func not in CHANGING:
        return result
    mode.forget(a)
    return a.copy_(result)


def _activations() -> Iterator[tuple[Any, Handler]]:
    """Yield each activation of torch, also those that work in place, with its replacement."""
    for name in (*_OWN, *_RATIO):
        for place in (each for each in PLACES if hasattr(each, name)):
            plain = getattr(place, name)
            yield plain, partial(_activation, name, plain, _arguments(plain))
            if hasattr(place, f"{name}_"):
                yield getattr(place, f"{name}_"), partial(_activation, name, plain, "")


HANDLERS: dict[Any, Handler] = {
    **dict(_activations()),
    **by_function(_power, "__pow__"),
    **by_function(_gated, "glu"),
    **by_function(_times, "mul", "multiply", "__mul__", "__rmul__", "mul_", "multiply_", "__imul__"),
    **by_function(_divided, "div", "divide", "true_divide", "__truediv__", "div_", "divide_", "__itruediv__"),
    **by_function(_inverse, "__rtruediv__", "__rdiv__"),
    **by_function(
        _plus,
        "add",
        "__add__",
        "__radd__",
        "add_",
        "__iadd__",
        "sub",
        "subtract",
        "__sub__",
        "sub_",
        "subtract_",
        "__isub__",
    ),
    **by_function(_minus, "__rsub__", "rsub"),
}
"""The replacements of torch functions, by function."""
