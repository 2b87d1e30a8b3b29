"""The state of torch around a call of a method: autocast, modes, hooks of saved tensors, devices and flags."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules import module as torch_modules
from torch.overrides import _get_current_function_mode_stack as function_modes
from torch.overrides import _pop_mode as pop_function_mode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack as dispatch_modes
from torch.utils._python_dispatch import _pop_mode as pop_dispatch_mode

_autograd = torch._C._autograd  # noqa: SLF001  torch has no public way to these hooks
_KINDS = ("cpu", "cuda")
_CUDNN = ("enabled", "benchmark", "deterministic")
_GLOBALS = {name: value for name, value in vars(torch_modules).items() if "_global_" in name and not callable(value)}
_HOOKS = tuple(name for name, value in _GLOBALS.items() if isinstance(value, dict))
_FLAGS = tuple(name for name in _GLOBALS if name not in _HOOKS)


@contextmanager
def torch_kept() -> Iterator[None]:
    """Restore after the block what a method may have changed of torch, also after an exception.

    Autocast, modes that replace torch's functions, hooks on saved tensors, the default device, hooks on all modules,
    deterministic algorithms, the precision of products, and cuDNN's flags.
    """
    before, hooks = _state(), {name: dict(getattr(torch_modules, name)) for name in _HOOKS}
    flags = {name: getattr(torch_modules, name) for name in _FLAGS}
    functions, dispatches, saved, depth = len(function_modes()), len(dispatch_modes()), _saved(), _depth()
    try:
        yield
    finally:
        _pop_device(before["device"])
        while len(function_modes()) > functions:
            pop_function_mode()
        while len(dispatch_modes()) > dispatches:
            pop_dispatch_mode()
        while (top := _saved()) is not None and top != saved:
            _autograd._pop_saved_tensors_default_hooks()  # noqa: SLF001
        for _ in range(_depth() - depth):  # below an open autocast, copies of weights would be kept for ever
            torch.autocast_decrement_nesting()
        now = _state()
        for name, put in _SETTERS.items():
            if now[name] != before[name]:
                put(before[name])
        for name, kept in hooks.items():
            held = getattr(torch_modules, name)
            if dict(held) != kept:  # the same dict object, because handles refer to it
                held.clear()
                held.update(kept)
        for name, flag in flags.items():
            setattr(torch_modules, name, flag)


def _state() -> dict[str, Any]:
    return {
        "autocast": [(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in _KINDS],
        "cache": torch.is_autocast_cache_enabled(),
        "device": getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None),  # noqa: SLF001
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "precision": torch.get_float32_matmul_precision(),
        "cudnn": [(name, getattr(torch.backends.cudnn, name)) for name in _CUDNN],
    }


def _put_autocast(kept: list[tuple[str, bool, torch.dtype]]) -> None:
    for kind, enabled, dtype in kept:
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)
    torch.clear_autocast_cache()


def _put_cudnn(kept: list[tuple[str, bool]]) -> None:
    for name, value in kept:
        setattr(torch.backends.cudnn, name, value)


_SETTERS: dict[str, Callable[[Any], Any]] = {
    "autocast": _put_autocast,
    "cache": torch.set_autocast_cache_enabled,
    "deterministic": lambda kept: torch.use_deterministic_algorithms(kept[0], warn_only=kept[1]),
    "precision": torch.set_float32_matmul_precision,
    "cudnn": _put_cudnn,
}


def _pop_device(before: Any) -> None:
    """Take a default device off that was set since."""
    if getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None) is not before:  # noqa: SLF001
        torch.set_default_device(None if before is None else before.device)


def _depth() -> int:
    """Return how many autocasts are open."""
    torch.autocast_increment_nesting()
    return int(torch.autocast_decrement_nesting())


def _saved() -> Any:
    return _autograd._top_saved_tensors_default_hooks(True)  # noqa: SLF001
