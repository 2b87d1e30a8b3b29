"""Call: a dotted path and its kwargs, the only way to plug anything in.

The path is imported and the kwargs are bound to the signature when the study is read, so a wrong name is an error
before the first computation, and an error inside an imported module is shown as that error.
"""

import functools
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ValidationError,
    field_validator,
    model_validator,
)

from efface.base.shown import shown
from efface.plug import moved, words
from efface.plug.accepts import own_name
from efface.plug.annotations import plugs, signature, wrong_types
from efface.plug.facts import wrong_facts
from efface.plug.identity import code_of
from efface.plug.learning import is_learning, wrong_parts
from efface.plug.path import near, resolve
from efface.plug.source import files_named

__all__ = ["Call", "bound", "resolve", "settings_by_path", "settings_by_word"]

_OFFERED = ("seeds", "max_batch", "score", "relu")  # what a method may hand on to one that it is given


class Call(BaseModel):
    """`{call: dotted.path, kwargs: {...}}`; a bare string is a call without kwargs.

    Settings that are methods or models may be named by their short words; they are kept by their dotted paths.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    call: str
    kwargs: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        tree = {"call": value} if isinstance(value, str) else value
        if isinstance(tree, dict) and isinstance(tree.get("call"), str):
            tree = tree | {"call": (path := moved.current(tree["call"]))}
            if isinstance(given := tree.get("kwargs"), dict):
                tree["kwargs"] = moved.settings(path, given, lambda: _parameters(path))
        return tree

    @field_validator("kwargs")
    @classmethod
    def _by_path(cls, kwargs: dict[str, Any], info: Any) -> dict[str, Any]:
        return settings_by_path(info.data.get("call", ""), kwargs)

    def __hash__(self) -> int:
        return hash(self.text)

    def __getstate__(self) -> dict[Any, Any]:
        """Return what another process needs. It computes the rest again."""
        state = super().__getstate__()
        plain = {name: value for name, value in state["__dict__"].items() if name in type(self).model_fields}
        return state | {"__dict__": plain}

    @cached_property
    def text(self) -> str:
        """The call in one canonical line."""
        return json.dumps(self.model_dump(), sort_keys=True, default=str)

    @cached_property
    def draw_text(self) -> str:
        """The call in one canonical line, from which random numbers are seeded: with the words of efface 0.1.

        A moved or renamed function or setting keeps its random numbers, so no published number changes.
        """
        return json.dumps(_as_first(self.model_dump()), sort_keys=True, default=str)

    def resolve(self) -> Any:
        """The object that the path names; ValueError says which part of it is missing or fails."""
        return resolve(self.call)

    def check(self, positional: Sequence[str], offered: Sequence[str] = ()) -> None:
        """Bind to the signature as it will be called: positional arguments, the kwargs, and `offered` if wanted."""
        target = self.resolve()
        if not callable(target):
            raise ValueError(f"'{self.call}' is a {type(target).__name__}, expected something to call")
        try:
            bindable = signature(target)
        except (ValueError, TypeError):  # some builtins have none: nothing to check against
            return
        problems = _unknown(self.call, bindable, len(positional), self.kwargs)
        problems += _missing(self.call, bindable, positional, self.kwargs, offered) + wrong_types(target, self.kwargs)
        problems += _wrong_plugs(target, self.kwargs) + wrong_facts(self.call, target)
        if problems:
            raise ValueError("; ".join(problems))
        own = getattr(sys.modules.get(getattr(target, "__module__", "")), f"check_{self.call.rpartition('.')[2]}", None)
        if callable(own):  # a function beside it, of the same settings, that knows what only it can know
            own(**{name: value for name, value in self.kwargs.items() if name in signature(own).parameters})

    def wants(self, name: str, *, needed: bool = False) -> bool:
        """Return whether the kwargs leave open a parameter of this name. needed: only one without a default."""
        return self.open(name, needed=needed) is not None

    def open(self, name: str, *, needed: bool = False) -> str | None:
        """The parameter that a keyword of this name goes to, see `wants`; None where there is none."""
        own = own_name(self.resolve(), name, needed=needed)
        return None if own in self.kwargs else own

    def __call__(self, *args: Any, **offered: Any) -> Any:
        """Call it; of the `offered` keywords it gets those that its signature names and its kwargs leave open."""
        taken = {own: value for name, value in offered.items() if (own := self.open(name)) is not None}
        return self.resolve()(*args, **taken, **self.settings())

    def settings(self) -> dict[str, Any]:
        """The kwargs as they are handed over: a method's class is made, what else is to be called is a Call."""
        if not (nested := self.nested()):
            return self.kwargs
        learning = {name: call() for name, call in self.methods().items() if inspect.isclass(call.resolve())}
        return self.kwargs | nested | learning

    def nested(self) -> dict[str, "Call"]:
        """The settings that are something to call themselves: a method's base, a second network."""
        return dict(_nested(self)) if self.kwargs else {}

    def methods(self) -> dict[str, "Call"]:
        """Those of them that are methods."""
        return {name: call for name, call in self.nested().items() if plugs(self.resolve())[name].positional}

    @property
    def learns(self) -> bool:
        """Return whether the call, or a method in its settings, is a class with `fit`."""
        return _learns(self)

    def identity(self) -> dict[str, Any]:
        """Return what a number made with this call depends on.

        These are name, code and settings (see `code_of`), and the files that the settings name.
        """
        nested = self.nested()
        settings = {name: value for name, value in self.kwargs.items() if name not in nested}
        parts = code_of(self.call) | {"kwargs": settings}
        if nested:
            parts["nested"] = {name: call.identity() for name, call in nested.items()}
        if files := files_named(self.kwargs):
            parts["files"] = files
        return parts


@functools.cache
def _nested(call: Call) -> dict[str, Call]:
    taken = plugs(call.resolve())
    given = {name: value for name, value in call.kwargs.items() if name in taken and value is not None}
    return {name: Call.model_validate(value) for name, value in given.items()}


@functools.cache
def _learns(call: Call) -> bool:
    target = call.resolve()
    return (inspect.isclass(target) and is_learning(call)) or any(method.learns for method in call.methods().values())


def settings_by_path(path: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The settings of a call with those that are plug-ins by their dotted paths. ValueError: a word that is none."""
    if not any(isinstance(value, str | dict) for value in kwargs.values()):
        return kwargs
    return kwargs | _changed(path, kwargs, words.expand)


def settings_by_word(path: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The same with short words, where efface has them."""
    return kwargs | _changed(path, kwargs, lambda _, value: words.word_of(value) or value)


def _changed(path: str, kwargs: dict[str, Any], change: Callable[[str, str], str]) -> dict[str, Any]:
    try:
        taken = plugs(resolve(path))
    except ValueError:  # said where the call is checked
        return {}
    changed = {}
    for name, value in kwargs.items():
        if name in taken and taken[name].kind and isinstance(value, str | dict):
            try:
                changed[name] = _with_path(value, taken[name].kind, change)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    return changed


def _with_path(value: Any, kind: str, change: Callable[[str, str], str]) -> Any:
    """A call as a study writes it, with the path of it and of its settings changed by `change(kind, path)`."""
    if isinstance(value, str):
        return change(kind, value)
    if not isinstance(value.get("call"), str):
        return value
    path = words.expand(kind, value["call"])
    kwargs = value.get("kwargs")
    inner = {"kwargs": kwargs | _changed(path, kwargs, change)} if isinstance(kwargs, dict) else {}
    return value | {"call": change(kind, path)} | inner


def _parameters(path: str) -> Mapping[str, inspect.Parameter]:
    """The parameters behind a path; none where it leads nowhere or has no signature."""
    try:
        return signature(resolve(path)).parameters
    except (ValueError, TypeError):
        return {}


def _as_first(value: Any) -> Any:
    """The same tree with every dotted path and setting of efface as efface 0.1 wrote it."""
    if isinstance(value, dict):
        if isinstance(value.get("call"), str) and isinstance(value.get("kwargs"), dict):
            value = value | {"kwargs": moved.first_settings(value["call"], value["kwargs"])}
        return {name: _as_first(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_first(item) for item in value]
    return moved.first(value) if isinstance(value, str) else value


def bound(*positional: str, offered: tuple[str, ...] = ()) -> AfterValidator:
    """For annotating a field: check its call against the way it will be made."""

    def check(call: Call) -> Call:
        call.check(positional, offered)
        return call

    return AfterValidator(check)


def _unknown(call: str, signature: inspect.Signature, positional: int, kwargs: dict[str, Any]) -> list[str]:
    parameters = list(signature.parameters.values())[positional:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return []
    known = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [
        f"{call} has no setting '{name}'; {moved.reference_place(name) or near(name, known)}"
        for name in kwargs
        if name not in known
    ]


def _missing(
    call: str, signature: inspect.Signature, positional: Sequence[str], kwargs: dict[str, Any], offered: Sequence[str]
) -> list[str]:
    taken = (moved.accepted(signature.parameters, name, call) for name in offered)
    given = dict.fromkeys([*kwargs, *(name for name in taken if name is not None)])
    try:
        signature.bind(*positional, **given)
    except TypeError as error:
        parameters = signature.parameters.values()
        if any(p.kind is p.VAR_KEYWORD for p in parameters) or set(given) <= set(signature.parameters):
            asked = f"({', '.join(positional)})" if positional else "no positional arguments"
            return [f"{call} cannot be called with {asked} and {', '.join(given) or 'no settings'}: {error}"]
    return []


def _wrong_plugs(target: Any, kwargs: Mapping[str, Any]) -> list[str]:
    """Settings that are something to call are checked as the study's own calls are."""
    problems = []
    for name, (positional, _) in plugs(target).items():
        if kwargs.get(name) is None:
            continue
        try:
            call = Call.model_validate(kwargs[name])
            if positional and inspect.isclass(call.resolve()):  # made with its settings, then called with them
                call.check(())
                problems += [f"{name}: {fault}" for fault in _wrong_instance(call, positional)]
            else:
                call.check(positional, _OFFERED)
            if positional and call.learns and inspect.isclass(target) and not is_learning(target):
                problems.append(
                    f"{name}: {call.call} learns from training images, which a class without fit does not hand on; "
                    f"give {target.__qualname__} a fit, or take a method that does not learn"
                )
        except ValidationError:
            problems.append(
                f"{name} is {shown(kwargs[name])}, expected a dotted path, or {{call: ..., kwargs: {{...}}}}"
            )
        except ValueError as error:
            problems.append(f"{name}: {error}")
    return problems


def _wrong_instance(call: Call, positional: Sequence[str]) -> list[str]:
    """A method that is a class is made, which checks its settings, and bound to the way it will be called."""
    instance = call()
    if not callable(instance):
        return [f"{call.call} is a class without __call__, expected __call__({', '.join(positional)})"]
    problems = _missing(call.call, inspect.signature(instance), positional, {}, _OFFERED)
    return problems + wrong_parts(call.resolve(), instance)
