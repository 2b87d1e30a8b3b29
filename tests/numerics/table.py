"""The table of golden outputs: names, and the functions that compute them."""

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from efface.store.keys import AREAS

Output = Callable[[], Mapping[str, Any]]

GROUPS = {
    "draws": "numerics.area_store",
    "store": "numerics.area_store",
    "erase": "numerics.area_erase",
    "train": "numerics.area_train",
    "explain": "numerics.area_explain",
    "generate": "numerics.area_explain",
    "evaluate": "numerics.area_explain",
    "measure": "numerics.plug_metrics",
    "pictures": "numerics.area_pictures",
    "data": "numerics.plug_networks",
    "model": "numerics.plug_networks",
    "imputer": "numerics.plug_images",
    "post": "numerics.plug_images",
    "unit": "numerics.plug_images",
    "augmentation": "numerics.plug_images",
    "attack": "numerics.plug_terms",
    "regularizer": "numerics.plug_terms",
    "method": "numerics.plug_methods",
    "metric": "numerics.plug_metrics",
}
"""Which module computes the names of a kind; a kind's module is imported when one of its names is asked for."""

ELSEWHERE = {
    "explain.parts": "numerics.plug_methods",
    "explain.FittedInner": "numerics.plug_methods",
    "evaluate.nonlinearity": "numerics.plug_networks",
}
"""Names that another module computes than that of their kind."""

OUTPUTS: dict[str, Output] = {}


def golden(name: str) -> Callable[[Output], Output]:
    """For decorating a function without arguments that returns named arrays and numbers."""

    def add(function: Output) -> Output:
        assert kind(name) in GROUPS, name
        assert name not in OUTPUTS, name
        OUTPUTS[name] = function
        return function

    return add


def kind(name: str) -> str:
    """What stands before the first point of a name."""
    return name.partition(".")[0]


def declared(name: str) -> str:
    """The name whose declared version guards an output: an area, or a plug-in by its kind and word."""
    return kind(name) if kind(name) in AREAS else ".".join(name.split(".")[:2])


def output(name: str) -> Mapping[str, Any]:
    """Compute one golden output."""
    importlib.import_module(ELSEWHERE.get(name, GROUPS[kind(name)]))
    return OUTPUTS[name]()


@cache
def names() -> tuple[str, ...]:
    """All names, by kind."""
    for module in dict.fromkeys(GROUPS.values()):
        importlib.import_module(module)
    return tuple(sorted(OUTPUTS, key=lambda name: (list(GROUPS).index(kind(name)), name)))
