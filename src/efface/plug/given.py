"""Objects that Python code hands over: a network, images, a lambda. They get a dotted path, as a study needs one.

The path of an object holds a digest of what it computes, so a key that names the path names the object.
"""

import functools
import hashlib
import importlib.machinery
import pickle
import re
import sys
import types
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efface.plug.code_digest import UnknownCodeError, code_digest
from efface.store.atomic import atomic_write

_HOME = "efface_given"
"""A module that lives in memory alone. Its name is not below `efface`: what stands there is not efface's own code."""


_NAMES: dict[str, str] = {}
"""The names of objects by their paths. Another process knows them only as far as a path holds them."""


def give(kind: str, name: str, value: Any, digest: str | None = None) -> str:
    """Return the dotted path under which a study finds the object.

    kind: what it is to the study, such as `method`.
    name: its name in the study; it is part of the path, for messages.
    digest: of all that the object computes; None: of its code. An object whose code cannot be told has a path of its
        own for each call, so that no result of another object is ever taken for its own.
    """
    digest = digest or digest_of(value)
    word = "".join(sign if sign.isascii() and sign.isalnum() else "_" for sign in name)
    attribute = f"{kind}_{word}_{digest}"
    setattr(_home(), attribute, value)
    _NAMES[f"{_HOME}.{attribute}"] = name
    return f"{_HOME}.{attribute}"


def digest_of(value: Any) -> str:
    """Return a digest of what an object computes, or one that no other call returns if it cannot be told."""
    try:
        return code_digest(value)
    except UnknownCodeError:
        return uuid.uuid4().hex[:16]


def is_given(path: str) -> bool:
    """Return whether a dotted path belongs to an object in memory. It holds all that a key needs of its code."""
    return path.startswith(f"{_HOME}.")


def names_given(text: str) -> bool:
    """Return whether a study names an object that Python code handed over. text: of the study."""
    return f"{_HOME}." in text


def said(text: str) -> str:
    """Return a message with the names of objects in place of the paths that they were given."""
    return re.sub(rf"\b{_HOME}\.[a-z]+_(\w*)_[0-9a-f]{{16}}", lambda path: _NAMES.get(path[0], path[1]), text)


def keep(text: str, folder: Path) -> Path | None:
    """Write the objects whose paths stand in a text into a file, for other processes; None if there are none.

    The file is read by `Carried` alone, in a worker of the process that wrote it.

    ValueError: one of them does not pickle, as a lambda or a class of a notebook.
    """
    names = sorted(set(re.findall(rf"\b{_HOME}\.(\w+)", text)))
    if not names:
        return None
    path = folder / f"objects-{hashlib.sha256(' '.join(names).encode()).hexdigest()[:16]}.pickle"
    objects = {name: getattr(_home(), name) for name in names}
    for name, value in objects.items():
        if (function := getattr(value, "__module__", None)) == "__main__":
            raise ValueError(f"{name} is defined in {function}, which other processes do not import")
        try:
            objects[name] = pickle.dumps(value)
        except Exception as error:  # pickle raises many types of exceptions
            raise ValueError(f"{name} does not pickle ({type(error).__name__}: {error})") from error
    with atomic_write(path) as temporary:
        temporary.write_bytes(pickle.dumps(objects))
    return path


@dataclass(frozen=True)
class Carried:
    """Work for another process, with the file of the objects that it needs."""

    work: Callable[[Any], Any]
    file: Path

    def __call__(self, task: Any) -> Any:
        """Return the result of the work. The objects are read once in a process."""
        _read(self.file)
        return self.work(task)


@functools.cache
def _read(file: Path) -> None:
    for name, content in pickle.loads(file.read_bytes()).items():  # noqa: S301  written by the parent process
        setattr(_home(), name, pickle.loads(content))  # noqa: S301


def _home() -> types.ModuleType:
    if _HOME not in sys.modules:
        module = types.ModuleType(_HOME, "Objects that Python code handed over to efface.")
        module.__spec__ = importlib.machinery.ModuleSpec(_HOME, None)
        sys.modules[_HOME] = module
    return sys.modules[_HOME]
