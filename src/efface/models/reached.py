"""Layers of a network that the gradient of the logits reaches, and at which of their places."""

from collections.abc import Iterable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from efface.base.types import Images
from efface.models.evaluation import evaluating
from efface.models.hook_watch import look_before, look_in
from efface.models.layout import identity_of
from efface.models.scores import logits_of

COUNT = 2
"""Number of images of the pass. `efface.models.layout` takes another, so that the axis of the images is known."""


class Reach(NamedTuple):
    """What a pass of two images, forward and back, tells of a layer's output.

    shape: of the output; () for one that is no tensor. reached: for each row of the second axis (each token), whether
    a gradient of the logits arrives there. of: name of the layer that returned this very tensor first. learnt: number
    of layers with weights that had run when this one finished. classes: whether the last axis has a value for each
    class.
    """

    shape: tuple[int, ...]
    reached: tuple[bool, ...]
    of: str
    learnt: int
    classes: bool


def reaches(model: nn.Module, images: Images) -> dict[str, Reach]:
    """Return what is known of each layer that ran, by name, in the order in which they finish.

    It costs a forward and a backward pass of two images, once for each model and size of image. A network whose last
    layer has zeros as weights, as fresh networks may have, gives no gradient. Then the pass starts before that layer.
    """
    kept = _KNOWN.setdefault(model, {})
    seen = identity_of(model, images)
    if seen not in kept:
        kept[seen] = _reaches(model, torch.cat([images[:1], (images[:1] + 0.5) % 1]).detach())
    return kept[seen]


_KNOWN: "WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], dict[str, Reach]]]" = WeakKeyDictionary()


class _Finished(NamedTuple):
    output: Any
    of: str
    learnt: int


def _reaches(model: nn.Module, images: Images) -> dict[str, Reach]:
    finished: dict[str, _Finished] = {}
    first: dict[int, str] = {}  # name of the layer that returned a tensor first; `finished` keeps the tensors alive
    kept: list[Any] = []
    read: list[Tensor] = []  # input of the layer with weights that ran last
    learnt = 0

    def leave(name: str, output: Any) -> None:
        finished.pop(name, None)  # of a layer that runs several times, the last time counts
        kept.append(output)
        finished[name] = _Finished(output, first.setdefault(id(output), name), learnt)

    def enter(inputs: tuple[Any, ...]) -> None:
        nonlocal learnt
        learnt += 1
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].requires_grad:
            read[:] = inputs[:1]

    handles = []
    try:
        for name, module in model.named_modules():
            if next(module.children(), None) is None and next(module.parameters(recurse=False), None) is not None:
                handles.append(look_before(module, lambda _, inputs: enter(inputs)))
            if name:
                handles.append(look_in(module, lambda _module, _inputs, output, name=name: leave(name, output)))
        with evaluating(model):
            logits = logits_of(model, images.clone().requires_grad_())
            before = _gradients([logits], {"": _Finished(read[0] if read else None, "", 0)}).get("")
            blind = before is not None and not before.any()
            arrived = _gradients(read if blind else [logits], finished)
    finally:
        for handle in handles:
            handle.remove()
    count = logits.shape[-1:]
    return {
        name: Reach(shape, _rows(arrived.get(name)), done.of, done.learnt, shape[-1:] == count)
        for name, done in finished.items()
        for shape in [_shape(done.output)]
    }


def _gradients(starts: Iterable[Tensor], finished: dict[str, _Finished]) -> dict[str, Tensor | None]:
    """Return the gradient of a weighted sum of `starts` at each output that it can have one at, by name."""
    able = {
        name: done.output
        for name, done in finished.items()
        if isinstance(done.output, Tensor) and done.output.requires_grad
    }
    weighed = [(start * torch.linspace(1, 2, start[0].numel()).to(start).view_as(start[0])).sum() for start in starts]
    if not able or not weighed or not weighed[0].requires_grad:
        return {}
    found = torch.autograd.grad(weighed, [*able.values()], allow_unused=True, retain_graph=True)
    return dict(zip(able, found, strict=True))


def _shape(output: Any) -> tuple[int, ...]:
    return tuple(output.shape) if isinstance(output, Tensor) else ()


def _rows(gradient: Tensor | None) -> tuple[bool, ...]:
    """Return whether there is a gradient, for each row of the second axis."""
    if gradient is None or gradient.ndim < 2:
        return ()
    return tuple((gradient.detach() != 0).transpose(0, 1).flatten(1).any(1).tolist())
