"""Whether a callable accepts a keyword, and a call with only the keywords that it accepts."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from efface.types import Images, Method, Target


def offer(method: Method, model: nn.Module, images: Images, targets: Target, **offered: Any) -> Any:
    """Call a method with those of the `offered` keywords that it accepts."""
    return method(model, images, targets, **{name: value for name, value in offered.items() if accepts(method, name)})


def accepts(called: Callable[..., Any], name: str, *, needed: bool = False) -> bool:
    """Whether a callable has a parameter of this name; a study's Call only one that its settings leave open.

    False for a callable that has no signature, as some builtins.

    needed: whether to ask for a parameter without a default.
    """
    wants = getattr(called, "wants", None)
    if wants is not None:  # a Call
        return bool(wants(name, needed=needed))
    try:
        parameters = inspect.signature(called).parameters
    except (ValueError, TypeError):
        return False
    return name in parameters and not (needed and parameters[name].default is not inspect.Parameter.empty)
