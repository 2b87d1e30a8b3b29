"""Digests of what objects in memory compute: functions, classes, networks, arrays, and what they hold.

Code counts as compiled, with the values that it closes over, its defaults, and the globals that it reads. What comes
from an installed package counts by the version of the package, and what comes from efface by its declared versions.
"""

import dis
import functools
import hashlib
import itertools
import pickle
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from efface.plug.source import is_installed, package_version
from efface.store.keys import NUMERICS


class UnknownCodeError(ValueError):
    """No digest can tell what an object computes."""


def code_digest(value: Any) -> str:
    """Return a digest of what an object computes, 16 digits. UnknownCodeError: it cannot be told."""
    whole = hashlib.sha256()
    for part in _parts(value, {}):
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()[:16]


def _parts(value: Any, seen: dict[int, Any]) -> Iterator[bytes]:
    """Yield the bytes that tell an object apart. seen: the objects around it, which are not entered again."""
    yield type(value).__qualname__.encode()
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        yield repr(value).encode()
    elif id(value) in seen:
        yield b"again"
    else:
        read = next((read for kinds, read in _READERS if isinstance(value, kinds)), _of_object)
        yield from read(value, seen | {id(value): value})


def _of_tensor(value: Tensor, _: dict[int, Any]) -> Iterator[bytes]:
    array = value.detach().cpu().contiguous()
    yield f"{array.dtype} {tuple(array.shape)}".encode()
    yield array.reshape(-1).view(torch.uint8).numpy().tobytes() if array.numel() else b""


def _of_array(value: np.ndarray, seen: dict[int, Any]) -> Iterator[bytes]:
    if value.dtype == object:
        yield from _of_items(value.ravel().tolist(), seen)
    else:
        yield f"{value.dtype} {value.shape}".encode() + value.tobytes()


def _of_items(values: list[Any] | tuple[Any, ...], seen: dict[int, Any]) -> Iterator[bytes]:
    for one in values:
        yield from _parts(one, seen)


def _of_mapping(values: Mapping[Any, Any], seen: dict[int, Any]) -> Iterator[bytes]:
    for pair in values.items():
        yield from _of_items(pair, seen)


def _of_method(value: types.MethodType, seen: dict[int, Any]) -> Iterator[bytes]:
    yield from _of_items((value.__func__, value.__self__), seen)


def _of_partial(value: "functools.partial[Any]", seen: dict[int, Any]) -> Iterator[bytes]:
    yield from _of_items((value.func, value.args, value.keywords), seen)


def _of_module(value: types.ModuleType, seen: dict[int, Any]) -> Iterator[bytes]:
    """A package counts by its version, a module of the user by what it holds now: it may have been loaded again."""
    if is_of_a_package(value):
        yield _module(value.__name__)
        return
    yield value.__name__.encode()
    for name, held in sorted(vars(value).items()):
        if not name.startswith("__"):
            yield name.encode()
            yield from _parts(held, seen)


def _of_built_in(value: Any, _: dict[int, Any]) -> Iterator[bytes]:
    yield f"{value.__module__}.{value.__qualname__}".encode()


def _of_function(function: types.FunctionType, seen: dict[int, Any]) -> Iterator[bytes]:
    if is_of_a_package(function):
        yield f"{function.__module__}.{function.__qualname__}".encode() + _module(function.__module__)
        return
    yield from _of_code(function.__code__, seen)
    yield from _parts(function.__defaults__, seen)
    yield from _parts(function.__kwdefaults__, seen)
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:  # not bound yet
            content = None
        yield from _parts(content, seen)
    for name in sorted(_globals_read(function.__code__)):
        if name in function.__globals__:
            yield name.encode()
            yield from _parts(function.__globals__[name], seen)
    yield from _parts({k: v for k, v in vars(function).items() if k not in ("__wrapped__", "__signature__")}, seen)


def _of_code(code: types.CodeType, seen: dict[int, Any]) -> Iterator[bytes]:
    yield code.co_code
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_argcount, code.co_kwonlyargcount)).encode()
    for constant in code.co_consts:
        if isinstance(constant, frozenset):
            yield repr(sorted(map(repr, constant))).encode()
        else:
            yield from _parts(constant, seen)


def _globals_read(code: types.CodeType) -> set[str]:
    names = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_globals_read(one) for one in code.co_consts if isinstance(one, types.CodeType)))


def _of_type(kind: type, seen: dict[int, Any]) -> Iterator[bytes]:
    yield f"{kind.__module__}.{kind.__qualname__}".encode()
    if is_of_a_package(kind):
        yield _module(kind.__module__)
        return
    for base in kind.__bases__:
        yield from _parts(base, seen)
    for name, value in vars(kind).items():
        if name in ("__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "_abc_impl"):
            continue
        yield name.encode()
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        if isinstance(value, property):
            value = (value.fget, value.fset, value.fdel)
        yield from _parts(value, seen)


_INNER = frozenset(vars(nn.Module()))
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


def _of_network(network: nn.Module, seen: dict[int, Any]) -> Iterator[bytes]:
    """The classes of a network's modules, all that they hold, their hooks, weights and buffers."""
    for name, module in network.named_modules(remove_duplicate=False):
        yield name.encode()
        yield from _parts(type(module), seen)
        held = vars(module)
        yield from _of_mapping({key: value for key, value in held.items() if key not in _INNER}, seen)
        for hooks in _HOOKS:
            yield from _of_items(list(held[hooks].values()), seen)
    for name, value in itertools.chain(network.named_parameters(), network.named_buffers()):
        yield name.encode()
        yield from _of_tensor(value, seen)


def _of_object(value: Any, seen: dict[int, Any]) -> Iterator[bytes]:
    """An object of a class: the class and what the object holds. UnknownCodeError: it holds what cannot be told."""
    held = getattr(value, "__dict__", None)
    if isinstance(held, dict):
        yield from _parts(type(value), seen)
        yield from _parts(held, seen)
        return
    try:
        yield pickle.dumps(value)
    except Exception as error:  # pickle raises many types of exceptions
        raise UnknownCodeError(f"{type(value).__name__}: {error}") from error


def is_of_a_package(value: Any) -> bool:
    """Return whether a module, function or class comes from an installed package or from efface."""
    name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
    module = sys.modules.get(name or "")
    if module is None:
        return False
    top = module.__name__.partition(".")[0]
    return top == "efface" or top in sys.builtin_module_names or is_installed(module)


def _module(name: str) -> bytes:
    """What tells a package's code apart: its version; of efface, the versions of its numbers."""
    top = name.partition(".")[0]
    if top == "efface":
        return repr(sorted(NUMERICS.items())).encode()
    if top in sys.builtin_module_names:
        return name.encode()
    return f"{name} {package_version(sys.modules.get(top, sys.modules[name]))}".encode()


_READERS: tuple[tuple[Any, Callable[[Any, dict[int, Any]], Iterator[bytes]]], ...] = (
    (Tensor, _of_tensor),
    (np.ndarray, _of_array),
    (types.ModuleType, _of_module),
    (type, _of_type),
    (types.FunctionType, _of_function),
    (types.CodeType, _of_code),
    (types.MethodType, _of_method),
    (functools.partial, _of_partial),
    (Mapping, _of_mapping),
    ((list, tuple), _of_items),
    (nn.Module, _of_network),
    ((types.BuiltinFunctionType, types.MethodWrapperType, types.WrapperDescriptorType), _of_built_in),
)
"""What yields the parts of an object, by its type; the first that fits."""
