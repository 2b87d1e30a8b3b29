"""What a function or class says of its settings by their annotations."""

import inspect
import typing
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from efface.types import Method


def wrong_types(target: Any, kwargs: dict[str, Any]) -> list[str]:
    """Plainly annotated settings (numbers, words, flags, lists of them) are checked; others are the callee's."""
    hints, problems = _hints(target), []
    for name, value in kwargs.items():
        if not _is_plain(hints.get(name)):
            continue
        words = _words(hints[name])
        if isinstance(value, str | bool) and value not in words and _is_number(hints[name], type(value)):
            problems.append(f"{name} is {value!r}, expected a number{''.join(f' or {word!r}' for word in words)}")
            continue
        if isinstance(value, float) and int in _parts(hints[name]) and float not in _parts(hints[name]):
            problems.append(f"{name} is {value!r}, expected a whole number")
            continue
        try:
            TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            problems.append(f"{name} is {value!r}: {error.errors()[0]['msg'].lower()}")
    return problems


def plugs(target: Any) -> dict[str, tuple[str, ...]]:
    """The settings that take something to call, each with what it will be called with by position."""
    found: dict[str, tuple[str, ...]] = {}
    for name, hint in _hints(target).items():
        if Method in _parts(hint):
            found[name] = ("model", "images", "targets")
        elif any(typing.get_origin(part) is Callable for part in _parts(hint)):
            found[name] = ()
    return found


def _hints(target: Any) -> dict[str, Any]:
    """The annotations of a call's settings; none where they do not resolve, as they need not."""
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # noqa: BLE001  annotations may name anything
        return {}


def _is_plain(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return True
    parts = [part for part in typing.get_args(hint) if part is not Ellipsis]
    return all(map(_is_plain, parts)) if parts else hint in (int, float, str, bool, type(None), list, tuple, dict)


def _is_number(hint: Any, other: type) -> bool:
    """Whether it takes numbers and nothing of the other type."""
    return (int in _parts(hint) or float in _parts(hint)) and other not in _parts(hint)


def _words(hint: Any) -> tuple[Any, ...]:
    """What it takes literally."""
    return tuple(w for part in _parts(hint) if typing.get_origin(part) is typing.Literal for w in typing.get_args(part))


def _parts(hint: Any) -> tuple[Any, ...]:
    return hint, *typing.get_args(hint)
