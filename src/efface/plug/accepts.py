"""Whether a callable accepts a keyword, and a call with only the keywords that it accepts."""

import inspect
from typing import Any

from torch import nn

from efface.types import Explained, Images, Method


def offer(method: Method, model: nn.Module, images: Images, targets: Explained, **offered: Any) -> Any:
    """Call a method with those of the `offered` keywords that it takes."""
    return method(model, images, targets, **{name: value for name, value in offered.items() if takes(method, name)})


def takes(method: Method, name: str) -> bool:
    """Whether a method has a keyword of this name; one that a study gave names only those it leaves open."""
    wants = getattr(method, "wants", None)
    if wants is not None:  # a Call
        return bool(wants(name))
    return name in inspect.signature(method).parameters
