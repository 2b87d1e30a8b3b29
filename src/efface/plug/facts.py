"""Facts about a plug-in: attributes of data, an imputer, a regulariser or a method that efface reads."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

KNOWN: dict[str, Any] = {
    "is_flat": False,
    "is_averaged": False,
    "cost": 6.0,
    "estimates_hessian": False,
    "doubts": None,
    "is_synthetic": False,
}
"""The known facts, with the values for a function that does not state them.

is_flat: for an imputer. True if its fill depends only on the shape of the images, so it is computed only once.
is_averaged: for an imputer with a setting `samples`. True if the score of an erased image is the mean over that many
    fills, each with seeds of its own.
cost: for a regulariser. Forward passes that it adds to a training step, for each image.
estimates_hessian: for a regulariser. True if its estimate is noise on a network whose Hessian is 0, such as a network
    of ReLUs.
doubts: for a method. Function (model, images, targets, maps, **settings) -> sentences about maps of two images that
    may not be what the method promises on this network. `check` and the stage before extraction print them.
is_synthetic: for data. True if the images are synthetic or handwritten digits, and no photographs.
"""


def states(**facts: bool | float | Callable[..., Any]) -> Callable[[Function], Function]:
    """Return a decorator that states facts: `@states(is_flat=True)` above a function.

    A plain attribute, `mine.is_flat = True`, has the same effect.

    TypeError: a fact is unknown.
    """
    if unknown := sorted(set(facts) - set(KNOWN)):
        raise TypeError(f"unknown facts: {', '.join(unknown)}; known are {', '.join(KNOWN)}")

    def mark(function: Function) -> Function:
        function.__dict__.update(facts)
        return function

    return mark


def fact(function: Any, name: str) -> Any:
    """Return the value of a fact that a function states, else the default value of that fact."""
    return getattr(function, name, KNOWN[name])


def misspelt_facts(path: str, target: Any) -> list[str]:
    """Return sentences on attributes of a function that were meant to be facts."""
    own = [] if path.startswith("efface.") else [each for each in getattr(target, "__dict__", ()) if each[0] != "_"]
    known = [*KNOWN, "is_control", "is_random"]
    near = {each: difflib.get_close_matches(each, known, n=1, cutoff=0.8) for each in own if each not in known}
    return [
        f"{path} has '{each}', which nothing reads; did you mean {close[0]}?"
        for each, close in near.items()
        if close and inspect.isfunction(target)
    ]
