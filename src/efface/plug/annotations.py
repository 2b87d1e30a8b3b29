"""Annotations of the settings of a function or class. They are read once for each callable."""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError
from torch import nn

from efface.base.shown import shown
from efface.base.types import Method, Split


def wrong_types(target: Any, kwargs: dict[str, Any]) -> list[str]:
    """Check the settings that are annotated with plain types: numbers, words, flags and lists of them.

    Other settings are checked by the function itself. The result has one message for each wrong setting.
    """
    hints, problems = _hints(target), []
    for name, value in kwargs.items():
        if not _is_plain(hints.get(name)):
            continue
        words = _words(hints[name])
        if isinstance(value, str | bool) and value not in words and _is_number(hints[name], type(value)):
            problems.append(f"{name} is {shown(value)}, expected a number{''.join(f' or {word!r}' for word in words)}")
            continue
        if isinstance(value, float) and int in _parts(hints[name]) and float not in _parts(hints[name]):
            problems.append(f"{name} is {shown(value)}, expected a whole number")
            continue
        try:
            _adapter(hints[name]).validate_python(value)
        except ValidationError as error:
            problems.append(f"{name} is {shown(value)}: {error.errors()[0]['msg'].lower()}")
    return problems


def plain_schemas(target: Any) -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each setting that is annotated with plain types, by name."""
    return {name: _adapter(hint).json_schema() for name, hint in _hints(target).items() if _is_plain(hint)}


class Plug(NamedTuple):
    """A setting that takes a callable.

    positional: names of the positional arguments that the callable gets.
    kind: kind of plug-in whose short words the setting accepts; "" for no kind.
    """

    positional: tuple[str, ...]
    kind: str


def plugs(target: Any) -> Mapping[str, Plug]:
    """Return the settings that take a callable, by name."""
    return _once(_plugs, target)


def signature(target: Any) -> inspect.Signature:
    """Return the signature of a callable. ValueError or TypeError: it has no signature, such as some builtins."""
    return _once(inspect.signature, target)


def _plugs(target: Any) -> dict[str, Plug]:
    by_name = {}
    for name, hint in _hints(target).items():
        called = [part for part in _parts(hint) if typing.get_origin(part) is Callable]
        if Method in _parts(hint):
            by_name[name] = Plug(("model", "images", "targets"), "method")
        elif called:
            returned = [typing.get_args(part)[-1] for part in called]
            made = ("data", dict[str, Split]), ("model", nn.Module)
            by_name[name] = Plug((), next((kind for kind, what in made if what in returned), ""))
    return by_name


T = TypeVar("T")


def _once(work: Callable[[Any], T], target: Any) -> T:
    """Apply `work` to the target. The result for a function or class is cached; an object may change, so it is not."""
    if inspect.isfunction(target) or inspect.isclass(target):
        return _kept(work, target)  # type: ignore[arg-type]  # both are hashable
    return work(target)


@functools.cache
def _kept(work: Callable[[Any], Any], target: Any) -> Any:
    return work(target)


@functools.cache
def _adapter(hint: Any) -> Any:
    return TypeAdapter(hint)


def _hints(target: Any) -> Mapping[str, Any]:
    """Return the annotations of a callable's settings; an empty result if they do not resolve, which is allowed."""
    return _once(_annotations, target)


def _annotations(target: Any) -> dict[str, Any]:
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
    """Return True if the annotation takes numbers and no value of the other type."""
    return (int in _parts(hint) or float in _parts(hint)) and other not in _parts(hint)


def _words(hint: Any) -> tuple[Any, ...]:
    """Return the literal values that the annotation takes."""
    return tuple(w for part in _parts(hint) if typing.get_origin(part) is typing.Literal for w in typing.get_args(part))


def _parts(hint: Any) -> tuple[Any, ...]:
    return hint, *typing.get_args(hint)
