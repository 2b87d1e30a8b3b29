"""Helpers for the adapters of other packages: restore the model, watch its functions, and name things in errors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from efface.models.hook_watch import look_before, look_in

Seen = Callable[[str, nn.Module, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Replacement of a torch function: (its name, innermost running module, function, args, kwargs) -> result."""

NON_LINEAR = {
    *("relu", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "sigmoid", "tanh", "relu6"),
    *("hardtanh", "hardswish", "hardsigmoid", "softmax"),
}
"""Functions that Captum and zennit handle only as modules, by the names that `watching` passes on."""

_TORCHS_OWN = frozenset(vars(nn.Module()))  # its dicts of parameters, modules and hooks, and a few flags


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Restore the attributes, hooks and tensors of every module on exit, also after an exception.

    A tensor that was replaced is put back. A change of a tensor's numbers in place is not noticed.
    """
    modules = [
        (module, {name: _copied(name, value) for name, value in vars(module).items()}) for module in model.modules()
    ]
    tensors = [(tensor, tensor.data) for tensor in (*model.parameters(), *model.buffers())]
    try:
        yield
    finally:
        for module, before in modules:
            now = vars(module)
            for name in [name for name in now if name not in before]:
                del now[name]
            for name, (value, held) in before.items():
                now[name] = value
                if held is not None:  # keep the same dict object, because hook handles refer to it
                    value.clear()
                    value.update(held)
        for tensor, data in tensors:
            tensor.data = data


def _copied(name: str, value: Any) -> tuple[Any, dict[Any, Any] | None]:
    return value, dict(value) if name in _TORCHS_OWN and isinstance(value, dict) else None


@contextmanager
def watching(model: nn.Module, seen: Seen) -> Iterator[None]:
    """Replace every torch function that the model calls on tensors by `seen`, inside the `with` block."""
    running: list[nn.Module] = []

    def enter(module: nn.Module, _inputs: object) -> None:
        running.append(module)

    def leave(_module: nn.Module, _inputs: object, _output: object) -> None:
        if running:  # an exception may occur before the module was entered
            running.pop()

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if not running:
                return func(*args, **(kwargs or {}))
            return seen(getattr(func, "__name__", "").strip("_"), running[-1], func, args, kwargs or {})

    handles = [look_before(module, enter, prepend=True) for module in model.modules()]
    handles += [look_in(module, leave, always_call=True) for module in model.modules()]
    try:
        with Watch():
            yield
    finally:
        for handle in handles:
            handle.remove()


def depend(*arguments: Any) -> bool:
    """Return True if all arguments are tensors that depend on the image."""
    return all(isinstance(argument, Tensor) and argument.requires_grad for argument in arguments)


def module_name(model: nn.Module, module: nn.Module) -> str:
    """Return the name of a module for an error message."""
    name = next((name for name, submodule in model.named_modules() if submodule is module), "")
    return f"'{name}' ({type(module).__name__})" if name else type(module).__name__


def nearest(name: str, known: list[str]) -> str:
    """Return the part of an error message that offers known names in place of an unknown one."""
    folded = {known_name.lower(): known_name for known_name in known}
    near = [folded[match] for match in get_close_matches(name.lower(), folded, n=3, cutoff=0.5)]
    return f"nearest are {', '.join(near)}" if near else f"it has {', '.join(known)}"
