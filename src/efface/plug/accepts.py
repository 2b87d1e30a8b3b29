"""Tests of the keywords that a callable accepts, and calls with only those keywords."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from efface.base.types import Images, Method, Target
from efface.plug import moved
from efface.plug.annotations import signature


def offer(method: Method, model: nn.Module, images: Images, targets: Target, **offered: Any) -> Any:
    """Call a method with the `offered` keywords that it accepts."""
    return method(model, images, targets, **taken(method, offered))


def taken(called: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    """Return the offered keywords that a callable accepts, under the names of its own signature."""
    return {own: value for name, value in offered.items() if (own := own_name(called, name)) is not None}


def named(called: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return all the given keywords. Those that the callable accepts have the names of its own signature."""
    return {own_name(called, name) or name: value for name, value in given.items()}


def accepts(called: Callable[..., Any], name: str, *, needed: bool = False) -> bool:
    """Return True if a callable has a parameter of this name. A study's Call has those that its settings leave open.

    The result is False for a callable without a signature, such as some builtins.

    needed: True to accept only a parameter without a default.
    """
    return own_name(called, name, needed=needed) is not None


def own_name(called: Callable[..., Any], name: str, *, needed: bool = False) -> str | None:
    """Return the name of the parameter that takes a keyword; None if there is no such parameter.

    The parameter has the keyword's name, or the name that it had in efface 0.1.

    needed: True to accept only a parameter without a default.
    """
    still_open = getattr(called, "open", None)
    if hasattr(called, "wants") and still_open is not None:  # a Call
        parameter: str | None = still_open(name, needed=needed)
        return parameter
    try:
        parameters = signature(called).parameters
    except (ValueError, TypeError):
        return None
    own = moved.accepted(parameters, name, getattr(called, "__qualname__", type(called).__qualname__))
    if own is None or (needed and parameters[own].default is not inspect.Parameter.empty):
        return None
    return own
