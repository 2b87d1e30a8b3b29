"""Resolution of dotted paths: modules are imported first, then attributes are read."""

import difflib
import functools
import importlib
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import Any


@functools.cache
def resolve(path: str) -> Any:
    """Return the object that a dotted path names.

    ValueError: the module does not exist, its import fails, or it has no such attribute.
    """
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ValueError(
            f"'{path}' is not a dotted path; expected module.function, such as efface.methods.gradient.gradient"
        )
    target: Any = None
    depth = 0
    for depth in range(1, len(parts)):
        name = ".".join(parts[:depth])
        if not _exists(name):
            depth -= 1
            break
        target = _import(name)
    if target is None:
        raise ValueError(f"'{path}': there is no module '{parts[0]}' here; is it installed, or in the current folder?")
    for at in range(depth, len(parts)):
        if not hasattr(target, parts[at]):
            whole = f"'{path}': " if at + 1 < len(parts) else ""
            holder = ".".join(parts[:at])
            raise ValueError(f"{whole}'{holder}' has no '{parts[at]}'; {near(parts[at], _public(target))}")
        target = getattr(target, parts[at])
    return target


@functools.cache
def modules_of(path: str) -> tuple[str, ...]:
    """Return the modules behind a path: the one that the path names, and the one that contains the object's code."""
    target, parts = resolve(path), path.split(".")
    named = next(name for end in range(len(parts) - 1, 0, -1) if (name := ".".join(parts[:end])) in sys.modules)
    return tuple(dict.fromkeys([named, str(getattr(target, "__module__", None) or type(target).__module__)]))


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # any exception comes from the user's module, so the message shows it
        last = traceback.extract_tb(error.__traceback__)[-1]
        where, what = f"{last.filename}:{last.lineno}", str(error)
        if isinstance(error, SyntaxError):  # the trace ends in the importer
            where, what = f"{error.filename}:{error.lineno}", error.msg
        raise ValueError(f"importing '{name}' fails: {type(error).__name__}: {what} ({where})") from error


def near(name: str, known: Sequence[str]) -> str:
    """Return a hint for an unknown name: the nearest known name and a list of the known names."""
    close = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(sorted(known)[:20]) + (", ..." if len(known) > 20 else "") if known else "nothing"
    return (f"did you mean '{close[0]}'? " if close else "") + f"it has {listed}"


def _public(owner: Any) -> list[str]:
    names = [name for name in dir(owner) if not name.startswith("_")]
    own = [n for n in names if getattr(getattr(owner, n), "__module__", None) == getattr(owner, "__name__", "")]
    own += [module.name for module in pkgutil.iter_modules(getattr(owner, "__path__", ()))]
    return own or names
