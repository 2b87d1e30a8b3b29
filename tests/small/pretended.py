"""A device that is not there: its tensors say that they are on it, and their numbers stay on the CPU.

It finds what otherwise only a machine with a GPU would show: tensors of two devices in one operation, a NumPy array
made of a tensor on the device, and a tensor made without `device=`. It says nothing of speed, memory, kernels of a GPU
or lower precision. The device is torch's `lazy`, because its autograd asks no driver.
"""

import contextlib
import threading
from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("lazy", 0)
CPU = torch.device("cpu")
aten = torch.ops.aten
MOVES = {aten.copy_.default, aten._to_copy.default}  # noqa: SLF001
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""Operations whose indices may be on the CPU while the indexed tensor is on a GPU."""
JOINING = {aten.cat.default, aten.stack.default}
"""Operations that refuse a single number of the CPU, which others take."""


class Pretended(Tensor):
    """A tensor of `DEVICE`; its numbers are in `held`, on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # noqa: SLF001

    @staticmethod
    def __new__(cls, held, *, requires_grad=False):
        return Tensor._make_wrapper_subclass(  # noqa: SLF001
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
            requires_grad=requires_grad,
        )

    def __init__(self, held, *, requires_grad=False):
        self.held = held

    def __repr__(self):
        return f"Pretended({self.held!r})"

    def __reduce_ex__(self, protocol):
        return self.held.detach().__reduce_ex__(protocol)

    def __array__(self, dtype=None):
        return self.numpy()

    def numpy(self, *, force=False):
        if not force:
            raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() first.")
        return self.detach().cpu().numpy()

    def tolist(self):
        return self.held.tolist()

    @property
    def data(self):
        return Tensor.data.__get__(self)

    @data.setter
    def data(self, new):
        Tensor.data.__set__(self, new)
        self.held = new.held

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return computed(operation, args, kwargs or {})


def computed(operation, args, kwargs):
    """An operation on the numbers; its results are on the device where a GPU's would be. RuntimeError: two devices."""
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    ours = [each for each in tensors if isinstance(each, Pretended)]
    if ours:
        refuse_two_devices(operation, args, tensors)
    wanted = kwargs.get("device")
    if wanted is not None:
        kwargs = kwargs | {"device": CPU}
    there = bool(ours) if wanted is None else torch.device(wanted).type == DEVICE.type
    if there and kwargs.get("generator") is not None:
        raise RuntimeError(f"Expected a '{DEVICE.type}' device type for generator but found 'cpu' ({operation})")
    given, settings = tree_map(lambda each: each.held if isinstance(each, Pretended) else each, (args, kwargs))
    result = operation(*given, **settings)
    if operation is aten.copy_.default:
        return args[0]
    if torch.Tag.inplace_view in operation.tags and there:
        laid_out = result.size(), result.stride(), result.storage_offset()
        return aten.as_strided_.default.redispatch(torch.DispatchKeySet(torch.DispatchKey.CPU), args[0], *laid_out)
    if not there:
        return result
    changed = {id(each.held): each for each in ours}  # what is changed in place is returned itself

    def wrapped(each):
        return changed[id(each)] if id(each) in changed else Pretended(each) if isinstance(each, Tensor) else each

    return tree_map(wrapped, result)


def refuse_two_devices(operation, args, tensors):
    """Raise RuntimeError where a GPU would: a tensor of the CPU beside one of the device."""
    if operation in MOVES:
        return
    if operation in INDEXING and isinstance(args[0], Pretended):
        tensors = [args[0], *args[2:3]]
    arguments = operation._schema.arguments  # noqa: SLF001
    changes = arguments and arguments[0].is_write
    if changes and isinstance(args[0], Tensor) and not isinstance(args[0], Pretended):
        strangers = [args[0]]
    else:
        strangers = [
            each for each in tensors if not isinstance(each, Pretended) and (each.ndim or operation in JOINING)
        ]
    if strangers:
        shape, dtype = tuple(strangers[0].shape), strangers[0].dtype
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {DEVICE} and cpu! "
            f"({operation}: {dtype} {shape} is on the cpu)"
        )


class Made(TorchDispatchMode):
    """What is made on the device from nothing, or moved to it."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return computed(operation, args, kwargs or {})


def listed(index):
    """An index with its lists as tensors."""
    if isinstance(index, tuple):
        return tuple(map(listed, index))
    return torch.tensor(index) if isinstance(index, list | np.ndarray) else index


class Listed(TorchFunctionMode):
    """What is made of Python's numbers, which torch hands to no dispatch mode, and what is read from a file."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function is Tensor.new_tensor and isinstance(args[0], Pretended):
            function, args = torch.tensor, args[1:]
            kwargs = {"device": DEVICE} | kwargs
        if function in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], Pretended):
            args = args[0], listed(args[1]), *args[2:]
        if function in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = torch.device(kwargs.pop("device"))
            if isinstance(args[0], Tensor):
                return args[0].to(device, kwargs.get("dtype"))
            return function(*args, **kwargs).to(device)
        return function(*args, **kwargs)


@contextlib.contextmanager
def pretended() -> Iterator[torch.device]:
    """Within, `DEVICE` is there, also in threads that start. Yield it."""
    run, load, autocast, asked = threading.Thread.run, torch.load, torch.autocast, torch.is_autocast_enabled

    def of_thread(thread):
        with Listed(), Made():
            run(thread)

    def loaded(*args, map_location=None, **kwargs):
        if map_location is None or torch.device(map_location).type != DEVICE.type:
            return load(*args, map_location=map_location, **kwargs)
        read = load(*args, map_location=CPU, **kwargs)
        return tree_map(lambda each: each.to(DEVICE) if isinstance(each, Tensor) else each, read)

    def of_cpu(kind, *args, **kwargs):
        return autocast("cpu" if kind == DEVICE.type else kind, *args, **kwargs)

    def without_gradients(wanted):  # torch lets no view of another tensor be made by a subclass in inference mode
        return torch.no_grad() if wanted else contextlib.nullcontext()

    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with (
            mock.patch.object(threading.Thread, "run", of_thread),
            mock.patch.object(torch, "load", loaded),
            mock.patch.object(torch, "autocast", of_cpu),
            mock.patch.object(torch._C, "_InferenceMode", without_gradients),  # noqa: SLF001
            mock.patch.object(
                torch, "is_autocast_enabled", lambda kind="cpu": asked("cpu" if kind == DEVICE.type else kind)
            ),
            Listed(),
            Made(),
        ):
            yield DEVICE
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)
