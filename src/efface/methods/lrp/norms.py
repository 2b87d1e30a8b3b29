"""Normalisations by an image's own mean and standard deviation, with the backward pass of a rule."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from efface.methods.lrp.functions import FrozenNorm, Ratio, applied
from efface.methods.lrp.mode import Handler, Propagation, bound, by_function, depends

Plain = Callable[[Tensor], Tensor]
Normalise = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Function from x to the normalised x, and to the factors by which x without its mean is multiplied."""


def _layer_norm(mode: Propagation, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = {"weight": None, "bias": None, "eps": 1e-5} | bound("input normalized_shape weight bias eps", args, kwargs)
    x, weight, shape = given["input"], given["weight"], list(given["normalized_shape"])

    def normalise(x: Tensor) -> tuple[Tensor, Tensor]:
        y, _, factor = torch.native_layer_norm(x, shape, weight, given["bias"], given["eps"])
        return y, factor if weight is None else factor * weight

    plain = partial(F.layer_norm, **_but_input(given))
    return _norm(mode, plain, x, normalise, tuple(x.shape), tuple(range(-len(shape), 0)))


def _rms_norm(mode: Propagation, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = {"weight": None, "eps": None} | bound("input normalized_shape weight eps", args, kwargs)
    x, weight = given["input"], given["weight"]
    least = torch.finfo(x.dtype).eps if given["eps"] is None else given["eps"]
    axes = tuple(range(-len(list(given["normalized_shape"])), 0))
    plain: Plain = partial(F.rms_norm, **_but_input(given))

    def normalise(x: Tensor) -> tuple[Tensor, Tensor]:
        factor = (x.square().mean(axes, keepdim=True) + least).rsqrt()
        return plain(x), factor if weight is None else factor * weight

    return _norm(mode, plain, x, normalise, tuple(x.shape), None)


def _group_norm(mode: Propagation, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = {"weight": None, "bias": None, "eps": 1e-5} | bound("input num_groups weight bias eps", args, kwargs)
    given = {name: given[name] for name in ("input", "num_groups", "weight", "bias", "eps")}
    x, weight, groups = given["input"], given["weight"], given["num_groups"]
    n, c = x.shape[:2]
    grouped = n, groups, prod(x.shape[1:]) // groups
    plain: Plain = partial(F.group_norm, **_but_input(given))

    def normalise(x: Tensor) -> tuple[Tensor, Tensor]:
        factor = (x.reshape(grouped).var(2, correction=0) + given["eps"]).rsqrt().repeat_interleave(c // groups, 1)
        factor = factor if weight is None else factor * weight
        return plain(x), factor.reshape(n, c, *(1,) * (x.ndim - 2))

    return _norm(mode, plain, x, normalise, grouped, (2,))


def _instance_norm(mode: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    names = "input running_mean running_var weight bias use_input_stats momentum eps"
    given = {"weight": None, "bias": None, "use_input_stats": True, "eps": 1e-5} | bound(names, args, kwargs)
    if not given["use_input_stats"]:
        return func(*args, **kwargs)
    x = given["input"]
    return _group_norm(mode, F.group_norm, (x, x.shape[1], given["weight"], given["bias"], given["eps"]), {})


def _normalize(mode: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = {"p": 2.0, "dim": 1, "eps": 1e-12} | bound("input p dim eps", args, kwargs)
    x = given["input"]
    if mode.rules.norms == "gradient" or not depends(x):
        return func(*args, **kwargs)
    return x / x.detach().norm(given["p"], given["dim"], keepdim=True).clamp_min(given["eps"])


def _but_input(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != "input"}


def _norm(
    mode: Propagation,
    plain: Plain,
    x: Tensor,
    normalise: Normalise,
    grouped: tuple[int, ...],
    around: tuple[int, ...] | None,
) -> Tensor:
    if not depends(x) or mode.rules.norms == "gradient":
        return plain(x)
    given = (Ratio, plain) if mode.rules.norms == "ratio" else (FrozenNorm, normalise, grouped, around)
    result: Tensor = applied(given[0], x, *given[1:])
    return result


HANDLERS: dict[Any, Handler] = {
    **by_function(_layer_norm, "layer_norm"),
    **by_function(_rms_norm, "rms_norm"),
    **by_function(_group_norm, "group_norm"),
    **by_function(_instance_norm, "instance_norm"),
    **by_function(_normalize, "normalize"),
}
"""The replacements of torch functions, by function."""
