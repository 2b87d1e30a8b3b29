"""The table of golden outputs: names, and the functions that compute them."""

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

Output = Callable[[], Mapping[str, Any]]

GROUPS = {
    "draws": "numerics.area_store",
    "store": "numerics.area_store",
    "erase": "numerics.area_erase",
    "train": "numerics.area_train",
    "explain": "numerics.area_explain",
    "generate": "numerics.area_explain",
    "evaluate": "numerics.area_explain",
    "data": "numerics.plug_networks",
    "models": "numerics.plug_networks",
    "impute": "numerics.plug_images",
    "post": "numerics.plug_images",
    "units": "numerics.plug_images",
    "augment": "numerics.plug_images",
    "attack": "numerics.plug_terms",
    "regularize": "numerics.plug_terms",
    "methods": "numerics.plug_methods",
    "metrics": "numerics.plug_metrics",
}
"""Which module computes the names of a kind; a kind's module is imported when one of its names is asked for."""

_OUTPUTS: dict[str, Output] = {}


def golden(name: str) -> Callable[[Output], Output]:
    """For decorating a function without arguments that returns named arrays and numbers."""

    def add(function: Output) -> Output:
        assert kind(name) in GROUPS, name
        assert name not in _OUTPUTS, name
        _OUTPUTS[name] = function
        return function

    return add


def kind(name: str) -> str:
    """What stands before the first point of a name."""
    return name.partition(".")[0]


def output(name: str) -> Mapping[str, Any]:
    """Compute one golden output."""
    importlib.import_module(GROUPS[kind(name)])
    return _OUTPUTS[name]()


@cache
def names() -> tuple[str, ...]:
    """All names, by kind."""
    for module in dict.fromkeys(GROUPS.values()):
        importlib.import_module(module)
    return tuple(sorted(_OUTPUTS, key=lambda name: (list(GROUPS).index(kind(name)), name)))
