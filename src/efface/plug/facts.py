"""Facts about a plug-in that stand on the plug-in: attributes of a fill or a regulariser that the harness reads."""

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

KNOWN: dict[str, Any] = {"is_flat": False, "cost": 6.0, "estimates_hessian": False}
"""What may be said, and what holds of a function that does not say it.

is_flat: of a fill; it asks nothing of the images but their shape, so that its colours may be worked out once.
cost: of a regulariser; the forward passes that it adds to a training step, for each image.
estimates_hessian: of a regulariser; its estimate is noise on a network whose Hessian is 0, as ReLU makes it.
"""


def states(**facts: bool | float) -> Callable[[Function], Function]:
    """A decorator: `@states(is_flat=True)` above a function. A plain attribute, `mine.is_flat = True`, does the same.

    TypeError: a fact that nothing reads.
    """
    if unknown := sorted(set(facts) - set(KNOWN)):
        raise TypeError(f"nothing reads the facts {', '.join(unknown)}; known are {', '.join(KNOWN)}")

    def mark(function: Function) -> Function:
        function.__dict__.update(facts)
        return function

    return mark


def fact(function: Any, name: str) -> Any:
    """What a function says of itself under this name, or what holds of one that says nothing."""
    return getattr(function, name, KNOWN[name])
