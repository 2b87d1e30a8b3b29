"""Whether a callable accepts a keyword, and a call with only the keywords that it accepts."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from efface.plug import moved
from efface.plug.annotations import signature
from efface.types import Images, Method, Target


def offer(method: Method, model: nn.Module, images: Images, targets: Target, **offered: Any) -> Any:
    """Call a method with those of the `offered` keywords that it accepts."""
    return method(model, images, targets, **taken(method, offered))


def taken(called: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    """Those of the offered keywords that a callable accepts, by the names of its own signature."""
    return {own: value for name, value in offered.items() if (own := own_name(called, name)) is not None}


def named(called: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """All the given keywords, by the names of a callable's own signature where it has them."""
    return {own_name(called, name) or name: value for name, value in given.items()}


def accepts(called: Callable[..., Any], name: str, *, needed: bool = False) -> bool:
    """Whether a callable has a parameter of this name; a study's Call only one that its settings leave open.

    False for a callable that has no signature, as some builtins.

    needed: whether to ask for a parameter without a default.
    """
    return own_name(called, name, needed=needed) is not None


def own_name(called: Callable[..., Any], name: str, *, needed: bool = False) -> str | None:
    """The parameter that a keyword goes to: of this name, or of its name in efface 0.1; None where there is none.

    needed: whether to ask for a parameter without a default.
    """
    still_open = getattr(called, "open", None)
    if hasattr(called, "wants") and still_open is not None:  # a Call
        found: str | None = still_open(name, needed=needed)
        return found
    try:
        parameters = signature(called).parameters
    except (ValueError, TypeError):
        return None
    own = moved.accepted(parameters, name, getattr(called, "__qualname__", type(called).__qualname__))
    if own is None or (needed and parameters[own].default is not inspect.Parameter.empty):
        return None
    return own
