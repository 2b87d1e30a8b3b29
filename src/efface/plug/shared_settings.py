"""One list of settings for several functions: a function takes the settings of another, with their defaults."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def with_settings_of(
    source: Callable[..., Any], *, but: tuple[str, ...] = (), after: str = ""
) -> Callable[[Function], Function]:
    """Return a decorator: the function takes the settings of `source` beside its own.

    The function receives them all as `**settings`, with the defaults of `source` for those that a call leaves out. Its
    signature and its annotations list them after its own settings, so a study is checked against them. A setting that
    the function lists itself is its own. The positional arguments of `source` are not taken.

    but: settings of `source` that the function does not take.
    after: setting of the function's own behind which they stand in its signature; by default the last one.

    TypeError: `source` or the function has no such setting, or the function has no `**settings`.
    """
    offered = _settings(inspect.signature(source))
    if unknown := sorted(set(but) - set(offered)):
        raise TypeError(f"{source.__name__} has no setting {', '.join(unknown)}; it has {', '.join(offered)}")

    def join(function: Function) -> Function:
        own = inspect.signature(function)
        listed = [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        if len(listed) == len(own.parameters):
            raise TypeError(f"{function.__name__} has no **settings to receive the settings of {source.__name__}")
        stated = [parameter.name for parameter in listed]
        if after and after not in stated:
            raise TypeError(f"{function.__name__} has no setting {after}; it has {', '.join(stated)}")
        taken = [parameter for name, parameter in offered.items() if name not in {*stated, *but}]
        place = 1 + stated.index(after) if after else len(listed)
        joined = own.replace(parameters=[*listed[:place], *taken, *listed[place:]])

        @functools.wraps(function)
        def called(*args: Any, **given: Any) -> Any:
            try:
                bound = joined.bind(*args, **given)
            except TypeError as error:
                raise TypeError(f"{function.__name__}(): {error}") from None
            bound.apply_defaults()
            return function(*bound.args, **bound.kwargs)

        hints = {name: parameter.annotation for name, parameter in joined.parameters.items()}
        called.__annotations__ = {name: hint for name, hint in hints.items() if hint is not inspect.Parameter.empty}
        called.__annotations__ |= {"return": own.return_annotation}
        called.__signature__ = joined  # type: ignore[attr-defined]  # `inspect.signature` reads it
        return cast(Function, called)

    return join


def _settings(signature: inspect.Signature) -> dict[str, inspect.Parameter]:
    return {
        name: parameter for name, parameter in signature.parameters.items() if parameter.kind is parameter.KEYWORD_ONLY
    }
