"""New names of the modules, names and settings of efface 0.1. The old ones work until efface 0.3, with a note.

An old path may stand in a study (`efface.post.absolute`), or in an import (`from efface.probes import Case`). An old
setting may stand in a study (`of: loss`), or in the signature of a user's method (`def mine(..., *, rows=256)`).
"""

import functools
import importlib
import importlib.machinery
import inspect
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from types import ModuleType
from typing import Any

from efface.plug.moved_names import CHANGED, MODULES, NAMES, REFERENCE_KEYS, SETTINGS, STUDY_KEYS

_PACKAGES = {"probes", "stats"}
_PREFIX = "efface."


def current(path: str) -> str:
    """The path of today for a dotted path of efface 0.1, with a note on stderr; any other path as it is.

    A name that has kept its path but not its numbers has a note, too.
    """
    new = _current(path)
    if new != path:
        _note(path, new)
    if said := CHANGED.get(new):
        _say(said)
    return new


@functools.cache
def _current(path: str) -> str:
    if not path.startswith(_PREFIX):
        return path
    parts = path.removeprefix(_PREFIX).split(".")
    for end in range(len(parts), 0, -1):
        head, rest = ".".join(parts[:end]), parts[end:]
        if new := NAMES.get(head) or MODULES.get(head):
            return _PREFIX + ".".join([new, *rest])
    return path


@functools.cache
def _note(old: str, new: str) -> None:
    """Say where a path is now."""
    from efface.plug.words import word_of  # it imports this module

    note(f"{old} is now {f'{word} ({new})' if (word := word_of(new)) else new}")


@functools.cache
def first(path: str) -> str:
    """The path that efface 0.1 had for a path of today. Random numbers are drawn by it, so that a move changes none."""
    for old, new in [*NAMES.items(), *MODULES.items()]:
        if path == _PREFIX + new or path.startswith(f"{_PREFIX}{new}."):
            return _PREFIX + old + path.removeprefix(_PREFIX + new)
    return path


@functools.cache
def note(text: str) -> None:
    """Say on stderr, once in a run, that an old word was used. Worker processes leave that to the main one."""
    _write(f"{text}; the old name works until efface 0.3")


@functools.cache
def _say(text: str) -> None:
    _write(text)


def _write(text: str) -> None:
    if multiprocessing.parent_process() is None:
        sys.stderr.write(f"note: {text}\n")


def settings(where: str, given: Mapping[str, Any], known: Callable[[], Collection[str]]) -> dict[str, Any]:
    """The settings of a call, by the names of today.

    where: what is called. known: gives the names that it takes; only asked where an old name is among the settings.
    """
    renamed = dict(given)
    for old, new in SETTINGS.items():
        if old in renamed and new not in renamed and new in (names := known()) and old not in names:
            note(f"{where}: the setting '{old}' is now '{new}'")
            renamed = {new if name == old else name: value for name, value in renamed.items()}
    return renamed


def accepted(parameters: Mapping[str, inspect.Parameter], name: str, where: str) -> str | None:
    """The name by which a signature takes a keyword: the keyword's own, or the one of efface 0.1; None: it does not."""
    if name in parameters:
        return name
    for old, new in SETTINGS.items():
        if new == name and old in parameters:
            note(f"{where}: the keyword '{old}' of its signature is now '{new}'")
            return old
    return None


def first_settings(path: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one of efface's own functions, by the names that efface 0.1 had; others as they are."""
    olds = {new: old for old, new in SETTINGS.items()} if path.startswith(_PREFIX) else {}
    return {olds.get(name, name): value for name, value in given.items()}


def reference_place(key: str) -> str:
    """Return the place here of a key of the ROAR reference system, in words; "" for any other key."""
    place = REFERENCE_KEYS.get(key.rpartition(".")[2])
    return f"it is a key of the ROAR reference system; here it is {place}" if place else ""


def study_key(key: str) -> str:
    """A study's key, dotted as in an override, whose first part is the word of today."""
    head, dot, rest = key.partition(".")
    if head in STUDY_KEYS:
        note(f"study: the key '{head}' is now '{STUDY_KEYS[head]}'")
    return STUDY_KEYS.get(head, head) + dot + rest


def study(tree: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the content of a study's file with the keys of today, also in variants. A key given twice stays."""
    content = {_key(key, tree): _entries(key, value) for key, value in tree.items()}
    if isinstance(variants := content.get("variants"), dict):
        content["variants"] = {
            name: {_key(key, part): _entries(key, value) for key, value in part.items()}
            if isinstance(part, dict)
            else part
            for name, part in variants.items()
        }
    return content


def _key(key: Any, beside: Mapping[Any, Any]) -> Any:
    old = isinstance(key, str) and STUDY_KEYS.get(key.partition(".")[0]) not in (None, *beside)
    return study_key(key) if old else key


def _entries(key: Any, value: Any) -> Any:
    """`network: judge` of an entry of `attribution_methods` is `network: second`."""
    if not isinstance(key, str) or key.partition(".")[0] != "attribution_methods":
        return value
    if isinstance(value, list):
        return [_entries(key, entry) for entry in value]
    if isinstance(value, dict) and value.get("network") == "judge":
        return value | {"network": _entries("attribution_methods.network", "judge")}
    if key.endswith(".network") and value == "judge":
        note("attribution_methods: 'network: judge' is now 'network: second'")
        return "second"
    return value


class Finder:
    """Imports a module of efface 0.1 by its old path, and warns once."""

    @staticmethod
    def find_spec(
        name: str, path: Iterable[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's spec, or None for a name that efface 0.1 did not have."""
        del path, target
        old = name.removeprefix(_PREFIX)
        if not name.startswith(_PREFIX) or old not in MODULES:
            return None
        return importlib.machinery.ModuleSpec(name, Finder, is_package=old in _PACKAGES)  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """A module that looks every name up in its new place."""
        return _Moved(spec.name)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Say where the module is now."""
        warnings.warn(
            f"{module.__name__} has moved to {_PREFIX}{MODULES[module.__name__.removeprefix(_PREFIX)]}; "
            "the old name works until efface 0.3",
            FutureWarning,
            stacklevel=2,
        )


class _Moved(ModuleType):
    def __getattr__(self, name: str) -> Any:
        old = self.__name__.removeprefix(_PREFIX)
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        home, _, new = NAMES.get(f"{old}.{name}", f"{MODULES[old]}.{name}").rpartition(".")
        return getattr(importlib.import_module(_PREFIX + home), new)


def install() -> None:
    """Let old import paths work in this process."""
    if Finder not in sys.meta_path:
        sys.meta_path.append(Finder)
