"""Calls of attribution methods, and checks of the maps that they return."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Seeds, Targets
from efface.methods.code_state import code_kept
from efface.methods.model_state import restored
from efface.methods.process_state import MethodTimeoutError, limited, process_kept
from efface.models.batch_norm import single_images_repaired
from efface.models.hook_watch import is_scripted, watched_hooks
from efface.models.modes import evaluate
from efface.plug.accepts import accepts, offer, taken
from efface.plug.call import Call
from efface.plug.learning import wrong_parts

OFFERS = ("seeds", "max_batch", "masks", "classes_of")
"""Keywords that a method receives if it names them."""


@dataclass(frozen=True)
class MethodCall:
    """A method with its settings, as the study declares it.

    name: name of the entry in the study.
    call: the method and its settings.
    batched: the method takes a batch, (model, images, targets). Else it takes one image, (model, image 1 c h w, label),
        with the label as a tensor without axes on the device of the image.
    outputs: names of the maps to keep from the dict that the method returns; empty for a method that returns one map.
    timeout: seconds after which a call is stopped; None: never.
    learnt: tensors that a class with `fit` learnt from the training images.
    """

    name: str
    call: Call
    batched: bool = True
    outputs: tuple[str, ...] = ()

    learnt: Mapping[str, Tensor] | None = None
    timeout: float | None = None

    @cached_property
    def method(self) -> Any:
        """Return the callable (model, images, targets): the function, or an instance of the class with `learnt` set."""
        if not is_class(self.call):
            return self.call
        instance = self.call()
        if self.learnt is not None:
            instance.learnt = dict(self.learnt)
        return instance

    @property
    def gives(self) -> tuple[str, ...]:
        """Return the names of the method's maps."""
        return self.outputs or (self.name,)


def attribute(
    method: MethodCall,
    model: nn.Module,
    images: Images,
    targets: Targets,
    *,
    seeds: Seeds,
    max_batch: int,
    masks: Tensor | None = None,
    classes_of: Callable[[Tensor], Targets] | None = None,
) -> dict[str, Tensor]:
    """Return the maps of a batch by name: float n h w or n c h w, or int64 n, seeds of a ranking redrawn each epoch.

    classes_of: function from logits to the classes to explain, in place of `targets`; for a method with `asks_classes`.
    ValueError: maps are missing, have a wrong shape or are not finite. The message names the method and the image.
    """
    if masks is None and accepts(method.method, "masks", needed=True):
        raise ValueError(
            f"attribution_methods.{method.name}: needs the masks of the true object, which these data do not have; "
            "choose data that have them, such as patches, or drop this method"
        )
    offered = {"seeds": seeds, "max_batch": max_batch, "masks": masks, "classes_of": classes_of}
    given = {name: value for name, value in offered.items() if value is not None}
    kept = process_kept(f"attribution_methods.{method.name}")
    with kept, code_kept(model), restored(model), draws.seeded(int(seeds[0])), watched_hooks() as watch:
        evaluate(model)
        with _plain_errors(method, model, len(images)), limited(method.timeout), single_images_repaired():
            if method.batched:
                returned = offer(method.method, model, images.clone(), targets.clone(), **_copies(given))
            else:
                returned = _one_by_one(method, model, images, targets)
    if watch.unheard:
        kinds = ", ".join(dict.fromkeys(watch.modules))
        raise ValueError(
            f"attribution_methods.{method.name}: registered {len(watch.modules)} hooks (on {kinds}), and none of them "
            f"ran, so its maps would not show what the method is made for: {type(model).__name__} does not call these "
            "modules. Name other layers, or hand over a network that calls its modules"
        )
    return _checked(method, returned, images)


def _copies(given: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords of a method with copies of the tensors, so that it cannot change the caller's."""
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in given.items()}


@contextlib.contextmanager
def _plain_errors(method: MethodCall, model: nn.Module, count: int) -> Iterator[None]:
    """Turn the end of time, and errors on a network without layers, into sentences."""
    try:
        yield
    except MethodTimeoutError:
        raise ValueError(
            f"attribution_methods.{method.name}: a call for {count} images did not end within {method.timeout:g} s and "
            "was stopped; give the entry a longer timeout, or fix the method"
        ) from None
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        if not is_scripted(model):
            raise
        raise ValueError(
            f"attribution_methods.{method.name}: needs the layers of the network, but torch.jit traced or scripted it, "
            f"and its layers do not run as modules; hand over the network itself ({error})"
        ) from error


def asks_classes(call: Call, *, batched: bool) -> bool:
    """Return True if a method takes the classes from its own forward pass, so that no separate pass is needed."""
    return batched and not is_class(call) and call.wants("classes_of")


def is_class(call: Call) -> bool:
    """Return True if a call names a class. A class is made with its settings, fitted if it has `fit`, then called."""
    return inspect.isclass(call.resolve())


def check_method(call: Call, *, batched: bool) -> None:
    """Check that a method can be called as efface will call it. ValueError: everything that does not fit."""
    positional = ("model", "images", "targets") if batched else ("model", "image", "label")
    offered = OFFERS if batched else ()
    if not is_class(call):
        call.check(positional, offered)
        return
    call.check(())
    made = call()  # the constructor checks the settings
    if not callable(made):
        raise ValueError(f"'{call.call}' is a class without __call__, expected __call__(model, images, targets)")
    given = taken(made, dict.fromkeys(offered))
    try:
        inspect.signature(made).bind(*positional, **given)
    except TypeError as error:
        raise ValueError(f"{call.call} cannot be called with ({', '.join(positional)}): {error}") from error
    if problems := wrong_parts(call.resolve(), made):
        raise ValueError("; ".join(problems))


def _one_by_one(method: MethodCall, model: nn.Module, images: Images, targets: Targets) -> Any:
    maps = [method.method(model, images[i : i + 1].clone(), targets[i].clone()) for i in range(len(images))]
    if isinstance(maps[0], dict):
        return {name: _stacked(method, [by_name[name] for by_name in maps], images) for name in maps[0]}
    return _stacked(method, maps, images)


def _stacked(method: MethodCall, singles: list[Any], images: Images) -> Tensor:
    """Return the maps of single images as one tensor; each is NumPy or torch, h w, 1 h w, c h w or 1 c h w."""
    _, c, h, w = images.shape
    maps = []
    for single in singles:
        shape = tuple(getattr(single, "shape", ()))
        if not isinstance(single, Tensor | np.ndarray) or shape not in ((h, w), (1, h, w), (c, h, w), (1, c, h, w)):
            raise ValueError(
                f"attribution_methods.{method.name}: returned {f'shape {shape}' if shape else _described(single)} "
                f"for one image, expected an array of shape ({h}, {w}), (1, {h}, {w}) or ({c}, {h}, {w})"
            )
        if wrong := _no_numbers(single):
            raise ValueError(f"attribution_methods.{method.name}: returned a map {wrong}")
        maps.append(_tensor(single).reshape(shape[-3:]))
    return torch.stack(maps)


def _tensor(values: Tensor | np.ndarray) -> Tensor:
    """Return a tensor; NumPy arrays are copied, because torch rejects reversed or read-only memory."""
    return values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))


def _no_numbers(values: Tensor | np.ndarray) -> str:
    """Return what makes maps unfit for float32, in words; "" for real numbers."""
    if isinstance(values, Tensor):
        if values.layout is not torch.strided:
            return f"of layout {str(values.layout).removeprefix('torch.')}; expected a dense tensor: call to_dense()"
        kind, real = str(values.dtype).removeprefix("torch."), not (values.is_complex() or values.is_quantized)
    else:
        if isinstance(values, np.ma.MaskedArray):
            return "in a masked array, whose hidden values have no meaning here; fill them, as in maps.filled(0)"
        kind, real = str(values.dtype), values.dtype.kind in "fiub"
    return "" if real else f"of type {kind}; expected real numbers: take .real or .abs(), or convert them to float32"


def _checked(method: MethodCall, returned: Any, images: Images) -> dict[str, Tensor]:
    where = f"attribution_methods.{method.name}"
    if not isinstance(returned, dict):
        if method.outputs:
            raise ValueError(
                f"{where}: returned one map, but 'outputs' names {', '.join(method.outputs)}; drop 'outputs'"
            )
        returned = {method.name: returned}
    elif not method.outputs or not set(method.outputs) <= set(returned):
        raise ValueError(
            f"{where}: returned a dict of maps {', '.join(map(str, returned))}; name them in the study, "
            f"outputs: [{', '.join(map(str, returned))}]"
        )
    return {
        name: _one(
            where if name == method.name else f"{where}.{name}",
            returned[name],
            images,
            seeded=accepts(method.method, "seeds"),
        )
        for name in method.gives
    }


def _one(where: str, returned: Any, images: Images, *, seeded: bool) -> Tensor:
    """Return one checked map tensor.

    seeded: the method takes seeds, so it may return seeds in place of maps, for a ranking redrawn in each epoch.
    """
    n, c, h, w = images.shape
    if not isinstance(returned, Tensor | np.ndarray):
        raise ValueError(
            f"{where}: returned {_described(returned)}, expected a tensor of shape ({n}, {h}, {w}) or "
            f"({n}, c, {h}, {w})"
        )
    if wrong := _no_numbers(returned):
        raise ValueError(f"{where}: returned maps {wrong}")
    maps = _tensor(returned)
    if seeded and maps.shape == (n,) and maps.dtype == torch.int64:
        return maps.cpu()
    fits = (
        maps.ndim > 0
        and maps.shape[0] == n
        and maps.shape[-2:] == (h, w)
        and (maps.ndim == 3 or (maps.ndim == 4 and maps.shape[1] in (1, c)))
    )
    if maps.ndim not in (3, 4) or not fits:
        raise ValueError(
            f"{where}: returned shape {tuple(maps.shape)} for {n} images of {c} x {h} x {w}, "
            f"expected ({n}, {h}, {w}), ({n}, 1, {h}, {w}) or ({n}, {c}, {h}, {w})"
        )
    exact, maps = maps, maps.float().cpu()
    if (
        exact.dtype == torch.float64
        and (lost := (exact.cpu() != 0).flatten(1).any(1) & (maps == 0).flatten(1).all(1)).any()
    ):
        raise ValueError(
            f"{where}: returned values so small that float32 holds 0 for all of them, first for image "
            f"{int(lost.nonzero()[0])} of {n}; scale the maps"
        )
    bad = (~maps.isfinite()).flatten(1).any(1).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"{where}: returned NaN or infinity for {len(bad)} of {n} images, first for number {int(bad[0])}"
        )
    return maps


def _described(returned: Any) -> str:
    if isinstance(returned, Sequence) and not isinstance(returned, str):
        return f"a {type(returned).__name__} of {len(returned)}"
    return "nothing" if returned is None else f"a {type(returned).__name__}"
