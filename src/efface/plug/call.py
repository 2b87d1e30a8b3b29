"""Call: a dotted path and its kwargs, the only way to plug anything in.

The path is imported and the kwargs are bound to the signature when the study is read, so a wrong name is an error
before the first computation, and an error inside an imported module is shown as that error.
"""

import difflib
import functools
import importlib
import importlib.util
import inspect
import json
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from efface.plug import moved
from efface.plug.accepts import accepts
from efface.plug.annotations import plugs, wrong_types
from efface.plug.learning import is_learning, wrong_parts
from efface.plug.source import file_digest, source_digest

_OFFERED = ("seeds", "rows", "of", "relu")  # what a method may hand on to one that it is given
_LONGEST_PATH = 4096


class Call(BaseModel):
    """`{call: dotted.path, kwargs: {...}}`; a bare string is a call without kwargs."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    call: str
    kwargs: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        tree = {"call": value} if isinstance(value, str) else value
        if isinstance(tree, dict) and isinstance(tree.get("call"), str):
            return tree | {"call": moved.current(tree["call"])}
        return tree

    def __hash__(self) -> int:
        return hash(self.text)

    @property
    def text(self) -> str:
        """The call in one canonical line."""
        return json.dumps(self.model_dump(), sort_keys=True, default=str)

    @property
    def draw_text(self) -> str:
        """The call in one canonical line, from which random numbers are seeded: with the paths of efface 0.1.

        A moved or renamed function keeps its random numbers, so no published number changes.
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
            signature = inspect.signature(target)
        except (ValueError, TypeError):  # some builtins have none: nothing to check against
            return
        problems = _unknown(self.call, signature, len(positional), self.kwargs)
        problems += _missing(self.call, signature, positional, self.kwargs, offered) + wrong_types(target, self.kwargs)
        problems += _wrong_plugs(target, self.kwargs)
        if problems:
            raise ValueError("; ".join(problems))
        own = getattr(sys.modules.get(getattr(target, "__module__", "")), f"check_{self.call.rpartition('.')[2]}", None)
        if callable(own):  # a function beside it, of the same settings, that knows what only it can know
            own(**{name: value for name, value in self.kwargs.items() if name in inspect.signature(own).parameters})

    def wants(self, name: str, *, needed: bool = False) -> bool:
        """Whether the signature has a parameter of this name that the kwargs leave open; needed: without a default."""
        return name not in self.kwargs and accepts(self.resolve(), name, needed=needed)

    def __call__(self, *args: Any, **offered: Any) -> Any:
        """Call it; of the `offered` keywords it gets those that its signature names and its kwargs leave open."""
        taken = {name: value for name, value in offered.items() if self.wants(name)}
        return self.resolve()(*args, **taken, **self.settings())

    def settings(self) -> dict[str, Any]:
        """The kwargs as they are handed over: a method's class is made, what else is to be called is a Call."""
        if not (nested := self.nested()):
            return self.kwargs
        made = {name: each() for name, each in self.methods().items() if inspect.isclass(each.resolve())}
        return self.kwargs | nested | made

    def nested(self) -> dict[str, "Call"]:
        """The settings that are something to call themselves: a method's base, a second network."""
        taken = plugs(self.resolve()) if self.kwargs else {}
        given = {name: value for name, value in self.kwargs.items() if name in taken and value is not None}
        return {name: Call.model_validate(value) for name, value in given.items()}

    def methods(self) -> dict[str, "Call"]:
        """Those of them that are methods."""
        taken = plugs(self.resolve()) if self.kwargs else {}
        return {name: each for name, each in self.nested().items() if taken[name]}

    @property
    def learns(self) -> bool:
        """Whether a class with `fit` is in it: itself, or one of its methods."""
        own = inspect.isclass(self.resolve()) and is_learning(self)
        return own or any(each.learns for each in self.methods().values())

    def identity(self) -> dict[str, Any]:
        """What a number made with this call depends on: path, kwargs, the source behind the path, files it names."""
        found = self.model_dump() | {"source": [source_digest(name) for name in _modules_of(self.call)]}
        if nested := self.nested():
            found["nested"] = {name: each.identity() for name, each in nested.items()}
        if files := {name: file_digest(Path(value)) for name, value in self.kwargs.items() if _is_file(value)}:
            found["files"] = files
        return found


def _as_first(value: Any) -> Any:
    """The same tree with every dotted path of efface as efface 0.1 wrote it."""
    if isinstance(value, dict):
        return {name: _as_first(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_first(each) for each in value]
    return moved.first(value) if isinstance(value, str) else value


def bound(*positional: str, offered: tuple[str, ...] = ()) -> AfterValidator:
    """For annotating a field: check its call against the way it will be made."""

    def check(call: Call) -> Call:
        call.check(positional, offered)
        return call

    return AfterValidator(check)


@functools.cache
def resolve(path: str) -> Any:
    """Import a dotted path: modules first, then attributes. ValueError tells the three ways to fail apart."""
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ValueError(f"'{path}' is no dotted path; expected module.function, e.g. efface.methods.gradient.gradient")
    found: Any = None
    depth = 0
    for depth in range(1, len(parts)):
        name = ".".join(parts[:depth])
        if not _exists(name):
            depth -= 1
            break
        found = _import(name)
    if found is None:
        raise ValueError(f"'{path}': there is no module '{parts[0]}' here; is it installed, or in the current folder?")
    for at in range(depth, len(parts)):
        if not hasattr(found, parts[at]):
            raise ValueError(f"'{'.'.join(parts[:at])}' has no '{parts[at]}'; {_near(parts[at], _public(found))}")
        found = getattr(found, parts[at])
    return found


@functools.cache
def _modules_of(path: str) -> tuple[str, ...]:
    """The modules behind a path: the one that the path names, and the one that the object's own code is in."""
    found, parts = resolve(path), path.split(".")
    named = next(name for end in range(len(parts) - 1, 0, -1) if (name := ".".join(parts[:end])) in sys.modules)
    return tuple(dict.fromkeys([named, str(getattr(found, "__module__", None) or type(found).__module__)]))


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever it raises is the user's own error, to be shown
        last = traceback.extract_tb(error.__traceback__)[-1]
        where, what = f"{last.filename}:{last.lineno}", str(error)
        if isinstance(error, SyntaxError):  # the trace ends in the importer
            where, what = f"{error.filename}:{error.lineno}", error.msg
        raise ValueError(f"importing '{name}' fails: {type(error).__name__}: {what} ({where})") from error


def _unknown(call: str, signature: inspect.Signature, positional: int, kwargs: dict[str, Any]) -> list[str]:
    parameters = list(signature.parameters.values())[positional:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return []
    known = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [f"{call} has no setting '{name}'; {_near(name, known)}" for name in kwargs if name not in known]


def _missing(
    call: str, signature: inspect.Signature, positional: Sequence[str], kwargs: dict[str, Any], offered: Sequence[str]
) -> list[str]:
    given = dict.fromkeys([*kwargs, *(name for name in offered if name in signature.parameters)])
    try:
        signature.bind(*positional, **given)
    except TypeError as error:
        parameters = signature.parameters.values()
        if any(p.kind is p.VAR_KEYWORD for p in parameters) or set(given) <= set(signature.parameters):
            asked = f"({', '.join(positional)})" if positional else "no positional arguments"
            return [f"{call} cannot be called with {asked} and {', '.join(given) or 'no settings'}: {error}"]
    return []


def _wrong_plugs(target: Any, kwargs: dict[str, Any]) -> list[str]:
    """Settings that are something to call are checked as the study's own calls are."""
    problems = []
    for name, positional in plugs(target).items():
        if kwargs.get(name) is None:
            continue
        try:
            call = Call.model_validate(kwargs[name])
            if positional and inspect.isclass(call.resolve()):  # made with its settings, then called with them
                call.check(())
                problems += [f"{name}: {each}" for each in _wrong_made(call, positional)]
            else:
                call.check(positional, _OFFERED)
            if positional and call.learns and inspect.isclass(target) and not is_learning(target):
                problems.append(
                    f"{name}: {call.call} learns from training images, which a class without fit does not hand on; "
                    f"give {target.__qualname__} a fit, or take a method that does not learn"
                )
        except ValidationError:
            problems.append(f"{name} is {kwargs[name]!r}, expected a dotted path, or {{call: ..., kwargs: {{...}}}}")
        except ValueError as error:
            problems.append(f"{name}: {error}")
    return problems


def _wrong_made(call: Call, positional: Sequence[str]) -> list[str]:
    """A method that is a class is made, which checks its settings, and bound to the way it will be called."""
    made = call()
    if not callable(made):
        return [f"{call.call} is a class without __call__, expected __call__({', '.join(positional)})"]
    problems = _missing(call.call, inspect.signature(made), positional, {}, _OFFERED)
    return problems + wrong_parts(call.resolve(), made)


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) < _LONGEST_PATH and Path(value).is_file()


def _near(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(sorted(known)[:20]) + (", ..." if len(known) > 20 else "") if known else "nothing"
    return (f"did you mean '{close[0]}'? " if close else "") + f"it has {listed}"


def _public(found: Any) -> list[str]:
    names = [name for name in dir(found) if not name.startswith("_")]
    own = [n for n in names if getattr(getattr(found, n), "__module__", None) == getattr(found, "__name__", "")]
    own += [each.name for each in pkgutil.iter_modules(getattr(found, "__path__", ()))]
    return own or names
