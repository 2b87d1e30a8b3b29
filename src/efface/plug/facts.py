"""Facts about a plug-in: attributes of data, an imputer, a regulariser or a method that efface reads."""

import difflib
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, get_args

from efface.base.shown import shown
from efface.base.types import Knows

Function = TypeVar("Function", bound=Callable[..., Any])

KNOWN: dict[str, Any] = {
    "is_flat": False,
    "is_averaged": False,
    "drops_tokens": False,
    "cost": 6.0,
    "estimates_hessian": False,
    "doubts": None,
    "looks_at": None,
    "is_synthetic": False,
}
"""The known facts, with the values for a function that does not state them.

is_flat: for an imputer. True if its fill depends only on the shape of the images, so it is computed only once.
is_averaged: for an imputer with a setting `samples`. True if the score of an erased image is the mean over that many
    fills, each with seeds of its own.
drops_tokens: for an imputer. True if it stands for the tokens of a transformer that are dropped. It fills no images.
cost: for a regulariser. Forward passes that it adds to a training step, for each image.
estimates_hessian: for a regulariser. True if its estimate is noise on a network whose Hessian is 0, such as a network
    of ReLUs.
doubts: for a method. Function (model, images, targets, maps, **settings) -> sentences about maps of two images that
    may not be what the method promises on this network. `check` and the stage before extraction print them.
looks_at: for a method. Function (model, images, **settings) -> the layer whose output the method reads, and how it is
    laid out, in words; "" if these settings name none. `check` prints it, and the page shows it.
is_synthetic: for data. True if the images are synthetic or handwritten digits, and no photographs.
"""


def states(**facts: bool | float | Callable[..., Any]) -> Callable[[Function], Function]:
    """Return a decorator that states facts: `@states(is_flat=True)` above a function.

    A plain attribute, `mine.is_flat = True`, has the same effect.

    TypeError: a fact is unknown, or its value has a wrong type.
    """
    if unknown := sorted(set(facts) - set(KNOWN)):
        raise TypeError(f"unknown facts: {', '.join(unknown)}; known are {', '.join(KNOWN)}")
    if wrong := [fault for name, value in facts.items() for fault in _wrong_type(name, value)]:
        raise TypeError("; ".join(wrong))

    def mark(function: Function) -> Function:
        function.__dict__.update(facts)
        return function

    return mark


def fact(function: Any, name: str) -> Any:
    """Return the value of a fact that a function states, else the default value of that fact."""
    return getattr(function, name, KNOWN[name])


def wrong_facts(path: str, target: Any) -> list[str]:
    """Return sentences on attributes that were meant to be facts, and on facts of a wrong type; none for efface's own.

    All attributes of a function count. Of a class or an object only the flags and `version` do, since its other
    attributes are its own.
    """
    if path.startswith("efface."):
        return []
    own = {name: value for name, value in getattr(target, "__dict__", {}).items() if name[0] != "_"}
    known = list(_TYPES)
    if not inspect.isfunction(target):
        known = [name for name in known if name not in _OF_FUNCTIONS]
        own = {name: value for name, value in own.items() if not hasattr(type(value), "__get__")}
    faults = []
    for name, value in own.items():
        if name in known:
            faults += [f"{path}: {fault}" for fault in _wrong_type(name, value)]
        else:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            faults += [f"{path} has '{name}', which nothing reads; did you mean {nearest}?" for nearest in close]
    return faults


def _wrong_type(name: str, value: Any) -> Iterator[str]:
    """Yield a sentence if a fact has a value of a wrong type."""
    expected = _TYPES[name]
    fits = {
        _FLAG: isinstance(value, bool),
        _COST: isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf,
        _WHOLE: isinstance(value, int) and not isinstance(value, bool),
        _KNOWN_TO: value in get_args(Knows),
        _FUNCTION: value is None or callable(value),
    }
    if not fits[expected]:
        yield f"the fact '{name}' is {shown(value)}; expected {expected}"


_FLAG, _COST, _WHOLE, _FUNCTION = "True or False", "a number from 0", "a whole number, such as 2", "a function"
_KNOWN_TO = ", ".join(get_args(Knows))
_OF_FUNCTIONS = ("knows", "cost", "estimates_hessian", "doubts", "looks_at")
_TYPES = {name: _FLAG for name, value in KNOWN.items() if isinstance(value, bool)} | {
    "cost": _COST,
    "doubts": _FUNCTION,
    "looks_at": _FUNCTION,
    "is_control": _FLAG,
    "is_random": _FLAG,
    "knows": _KNOWN_TO,
    "version": _WHOLE,
}
"""What each fact must be. `efface.methods.control` reads those of controls, and `efface.plug.identity` the version."""
