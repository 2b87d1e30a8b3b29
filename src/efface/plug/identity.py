"""The part of a key for a plug-in's code: a declared version for efface's own, a digest of the source for a user's."""

import functools
from typing import Any

from efface.plug import words
from efface.plug.given import is_given
from efface.plug.path import modules_of, resolve
from efface.plug.source import imports_efface, source_digest
from efface.store.keys import NUMERICS, version


def code_of(path: str, plugin: type | None = None) -> dict[str, Any]:
    """The name of what a dotted path leads to, and its code.

    A plug-in of efface is its kind and word with its declared version, so a move or a new name of a module changes no
    key. All else is its path with a digest of the source behind it. A function or class of a user may carry a `version`
    of its own, which counts as well. Code that uses efface in ways that no name tells holds all declared versions.

    plugin: the class that the path leads to; by default it is imported.
    """
    if is_given(path):
        return {"call": path}
    name, code, uses_efface = _known(path) if plugin is None else _parts(path, plugin, (plugin.__module__,))
    if name:
        return {"call": name, "version": version(name)}
    return {"call": path, **code} | ({"numerics": dict(NUMERICS)} if uses_efface else {})


@functools.cache
def _known(path: str) -> tuple[str, dict[str, Any], bool]:
    return _parts(path, resolve(path), modules_of(path))


def _parts(path: str, plugin: Any, modules: tuple[str, ...]) -> tuple[str, dict[str, Any], bool]:
    """Kind and word of a plug-in of efface; else the parts of a key for its code, and whether that uses efface."""
    if name := _word(path, plugin):
        return name, {}, False
    own = [module for module in modules if module.partition(".")[0] != "efface"]
    code: dict[str, Any] = {"source": [source_digest(module) for module in own]} if own else {}
    number = getattr(plugin, "version", None)
    if isinstance(number, int) and not isinstance(number, bool):
        code["version"] = number
    return "", code, len(own) < len(modules) or any(imports_efface(module) for module in own)


def _word(path: str, target: Any) -> str:
    """The kind and word of a plug-in of efface, whichever path leads to it; "" for all else."""
    if (name := words.name_of(path)) or not str(getattr(target, "__module__", "")).startswith("efface."):
        return name
    called = getattr(target, "__name__", "")
    for kind in words.KINDS:
        home = words.index(kind).get(called, "")
        if home and resolve(home) is target:
            return f"{kind}.{called}"
    return ""
