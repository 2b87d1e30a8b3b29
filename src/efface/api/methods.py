"""The methods of a call from Python as entries of a study."""

import contextlib
import functools
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from efface.api.captum_objects import captum_settings, is_captum
from efface.base.types import Stored
from efface.plug.code_digest import is_of_a_package
from efface.plug.given import give
from efface.plug.path import resolve
from efface.store.arrays import digest
from efface.store.foreign_write import write_maps

Methods = Mapping[str, Any] | Iterable[Any]


def entries_of(
    methods: Methods, model: nn.Module | Callable[..., Any], images: Tensor | Stored, folder: Path
) -> list[dict[str, Any]]:
    """Return the entries of a study for these methods.

    methods: by name, or a list of short words and functions, which are named after themselves. A method is: a short
        word or dotted path; an entry as a study has it, `{"method": ..., "kwargs": {...}, "post": [...]}`; a function
        (model, images, targets) -> maps, or (model, image, label) -> map, whose second argument is called `image`; a
        class or an object of Captum; or an array of maps of the images, n h w or n c h w.
    model: the network that is explained.
    images: the test images, which arrays of maps belong to.
    folder: folder for the files of such arrays.

    ValueError: a method is none of these.
    """
    if isinstance(methods, str):
        methods = [methods]
    named = dict(methods) if isinstance(methods, Mapping) else _named(methods)
    if not named:
        raise ValueError("methods: are none; hand over one or more, such as methods={'mine': my_function}")
    return [{"name": name} | _entry(str(name), value, model, images, folder) for name, value in named.items()]


def _named(methods: Iterable[Any]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for value in methods:
        name = value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__)
        if isinstance(value, Tensor | np.ndarray) or (name in named):
            raise ValueError(
                f"methods: {'maps have no name' if name not in named else f'{name} stands there twice'}; hand over a "
                "dict, such as {'mine': value}"
            )
        named[name] = value
    return named


def _entry(name: str, value: Any, model: Any, images: Tensor | Stored, folder: Path) -> dict[str, Any]:
    if isinstance(value, str):
        return {"method": value}
    if isinstance(value, Tensor | np.ndarray):
        return {"file": str(_maps_file(name, value, images, folder))}
    if isinstance(value, Mapping):
        return _of_mapping(name, value, model, images, folder)
    if is_captum(value):
        if not isinstance(model, nn.Module) and not isinstance(value, type):
            raise ValueError(f"methods: {name}: is made for a network, but the model is a function; give its class")
        return {"method": "captum", "kwargs": captum_settings(name, value, model)}
    if isinstance(value, functools.partial) and not value.args and _is_plain(value.keywords):
        return _entry(name, value.func, model, images, folder) | {"kwargs": dict(value.keywords)}
    if callable(value):
        return {"method": _path(name, value)} | ({"batched": False} if _takes_one(value) else {})
    raise ValueError(
        f"methods: {name}: is a {type(value).__name__}; expected a short word such as 'grad_cam', a function (model, "
        "images, targets) -> maps, an object of Captum, or an array of maps"
    )


def _of_mapping(
    name: str, value: Mapping[str, Any], model: Any, images: Tensor | Stored, folder: Path
) -> dict[str, Any]:
    """An entry as a study has it, whose method may be any of the others."""
    entry = {str(k): v for k, v in value.items()}
    method = entry.pop("method", None)
    if method is None or isinstance(method, str):
        return entry | ({} if method is None else {"method": method})
    own = _entry(name, method, model, images, folder)
    if isinstance(entry.get("kwargs"), Mapping) and isinstance(own.get("kwargs"), Mapping):
        entry["kwargs"] = {**own["kwargs"], **entry["kwargs"]}
    return own | entry


def _path(name: str, function: Callable[..., Any]) -> str:
    """The dotted path of a function: its own if efface or a package has it, else one that is given to it.

    A module of the user may have been loaded again, so its functions count as they are in memory.
    """
    module, called = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if is_of_a_package(function) and called.isidentifier():
        with contextlib.suppress(ValueError):
            if resolve(f"{module}.{called}") is function:
                return f"{module}.{called}"
    return give("method", name, function)


def _takes_one(function: Callable[..., Any]) -> bool:
    """Return whether a function takes one image: its second argument is called `image`."""
    try:
        names = list(inspect.signature(function).parameters)
    except (ValueError, TypeError):
        return False
    return len(names) > 1 and names[1] == "image"


def _maps_file(name: str, maps: Any, images: Tensor | Stored, folder: Path) -> Path:
    held = torch.as_tensor(maps).detach().cpu().float()
    path = folder / f"maps-{digest(held)}-{digest(images)}.npz"
    if path.exists():
        return path
    try:
        return write_maps(path, held, images=images)
    except ValueError as error:
        raise ValueError(f"methods: {name}: {str(error).removeprefix(f'{path}: ')}") from None


def _is_plain(settings: Mapping[str, Any]) -> bool:
    try:
        return bool(json.dumps(settings)) and all(isinstance(name, str) for name in settings)
    except (TypeError, ValueError):
        return False
