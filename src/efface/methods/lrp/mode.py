"""The context in which a network runs so that its backward pass propagates relevance; nothing of it is changed."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from efface.base.types import Images
from efface.methods.lrp.functions import applied
from efface.methods.lrp.linear import LinearMap, Propagated
from efface.methods.lrp.rules import ONLY_FIRST, Rules

_IN_PLACE = ("__iadd__", "__isub__", "__imul__", "__itruediv__", "__idiv__", "__ipow__", "__setitem__")

Handler = Callable[["Propagation", Any, tuple[Any, ...], dict[str, Any]], Any]
"""Replacement of a torch function: (context, function, args, kwargs) -> result."""

CARRYING: set[Any] = set()
"""Functions whose result is of the same nature as their first argument, such as a reshape of attention weights."""

CHANGING: set[Any] = set()
"""Functions that change their first argument in place."""

PLACES = (torch, Tensor, F, torch._C._nn, torch.special, torch.linalg)  # noqa: SLF001  it holds functions of F


class Propagation(TorchFunctionMode):
    """A context: inside it, operations that depend on the image have the backward pass of the rules.

    The values of all operations stay. Gradients of the output that are taken after the context are changed: a tensor
    times its gradient is its relevance.

    handlers: replacements of torch functions. rules: the rules.
    points: the images, which require a gradient. title: name of the method, for messages.
    bounds: the smallest and the largest input of the first layer, for the rule z_box.

    attentions: attention weights in the order of the blocks, and whether they are transposed, if `keeps_attention`.
    candidates: tensors of the images' shape that the network computes before its first layer; the images come first.
    first: input of the first layer. extra: zeros of its shape, whose gradient is relevance that is no multiple of it.
    blocked: nodes of the graph that have no rule, with what they are.
    """

    def __init__(
        self,
        handlers: Mapping[Any, Handler],
        rules: Rules,
        points: Images,
        title: str,
        *,
        bounds: Any = None,
        keeps_attention: bool = False,
    ) -> None:
        super().__init__()
        self.handlers, self.rules, self.title, self.bounds = handlers, rules, title, bounds
        self.keeps_attention = keeps_attention
        self.attentions: list[tuple[Tensor, bool]] = []
        self.candidates: list[Tensor] = [points]
        self.first: Tensor | None = None
        self.extra: Tensor | None = None
        self.blocked: dict[Any, str] = {}
        self._marks = WeakIdKeyDictionary()
        self._layers = WeakIdKeyDictionary()

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        handler = self.handlers.get(func)
        result = func(*args, **kwargs) if handler is None else handler(self, func, args, kwargs)
        if handler is None and args and (self._marks or self._layers):
            if func in CARRYING:
                self.mark(result, self.mark_of(args[0]))
            elif func in CHANGING:
                self.forget(args[0])
        if self.first is None and isinstance(result, Tensor) and result.shape == self.candidates[0].shape:
            self._note(result)
        return result

    def _note(self, result: Tensor) -> None:
        if result.requires_grad and all(result is not known for known in self.candidates):
            self.candidates.append(result)

    def mark_of(self, tensor: Any) -> str:
        """Return what is known of a tensor: weights, gate, tanh, or nothing."""
        found: str = self._marks.get(tensor, "") if isinstance(tensor, Tensor) else ""
        return found

    def mark(self, result: Any, mark: str) -> Any:
        """Return the result, and remember what it is."""
        if mark and isinstance(result, Tensor):
            self._marks[result] = mark
        return result

    def forget(self, tensor: Any) -> None:
        """Forget what is known of a tensor that changes in place."""
        self._marks.pop(tensor, None)
        self._layers.pop(tensor, None)

    def layer(self, x: Tensor, layer: LinearMap) -> Tensor:
        """Return the output of a linear layer, whose backward pass is that of its rule."""
        rule, extra = self.rules.dense if layer.convolution is None else self.rules.convolution, None
        if self.first is None:
            self.first = x
            rule = self.rules.first or rule
            if rule.kind in ONLY_FIRST:
                extra = self.extra = torch.zeros_like(x).requires_grad_()
        if rule.is_gradient:
            return layer(x)
        result: Tensor = applied(Propagated, x, extra, layer, rule, self.bounds, None)
        self._layers[result] = (x, extra, layer, rule)
        return result

    def with_norm(self, z: Tensor, scale: Tensor, shift: Tensor, compute: Callable[[], Tensor]) -> Tensor | None:
        """Return scale * z + shift as the output of one layer with the layer that computed z.

        scale, shift: numbers for each channel, the second axis of z. compute: function that computes the output.

        None: z is not the output of a layer with a rule, or its channels are not those of the layer.
        """
        known = self._layers.get(z)
        if known is None or (known[2].convolution is None and z.ndim != 2):
            return None
        x, extra, layer, rule = known
        merged = layer.merged(scale, shift)
        result: Tensor = applied(Propagated, x, extra, merged, rule, self.bounds, compute)
        return result


def by_function(handler: Handler, *names: str) -> dict[Any, Handler]:
    """Return a replacement by the functions of torch with these names."""
    return dict.fromkeys(functions(*names), handler)


def functions(*names: str) -> list[Any]:
    """Return the functions of torch with these names; a name may stand in several places."""
    return [getattr(place, name) for place in PLACES for name in names if hasattr(place, name)]


def bound(names: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name, given the names of the positional ones."""
    return dict(zip(names.split(), args, strict=False)) | kwargs


def depends(*values: Any) -> bool:
    """Return True if all values are tensors that depend on the image."""
    return all(isinstance(value, Tensor) and value.requires_grad for value in values)


CARRYING.update(
    functions(
        *("view", "reshape", "view_as", "reshape_as", "expand", "expand_as", "unsqueeze", "squeeze", "flatten"),
        *("unflatten", "transpose", "permute", "movedim", "swapaxes", "contiguous", "clone", "to", "type", "type_as"),
        *("float", "half", "bfloat16", "double", "dropout", "repeat", "repeat_interleave", "neg", "t", "__getitem__"),
    )
)
CARRYING.update(getattr(Tensor, name).__get__ for name in ("mT", "T"))
CHANGING.update(
    function
    for place in (Tensor, torch, F)
    for name in dir(place)
    if (name.endswith("_") and not name.startswith("_")) or name in _IN_PLACE
    if callable(function := getattr(place, name)) and not isinstance(function, type)
)
