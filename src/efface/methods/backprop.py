"""Gradients with a changed backward pass through each ReLU: guided backprop, deconvnet, rectified gradient."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from efface.base.types import Images, Target, TargetScore
from efface.methods.gradients import gradient_at
from efface.models.evaluation import evaluating
from efface.models.memory import blocks

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(output of a ReLU, True where the ReLU is active, gradient of the output) -> gradient of the input."""


def guided_backprop(
    model: nn.Module, images: Images, targets: Target, *, score: TargetScore = "logit", max_batch: int = 256
) -> Images:
    """Gradient that passes a ReLU only where it is positive and the ReLU is active: one forward, one backward pass.

    Formula: backward through a ReLU: g_in = max(g_out, 0) * [x > 0].

    Every ReLU and ReLU6 of the network must be a module. It may work in place, and it may run several times. A network
    that calls a ReLU as a function raises a ValueError with the name of the module. So does a network without any
    ReLU. Other non-linearities keep their own gradient.

    score: score of the target class to differentiate: logit, log_probability, probability or loss (cross entropy).
    max_batch: most images in one pass, at least 1. It limits the memory and changes no map.

    Source: Springenberg, Dosovitskiy, Brox & Riedmiller 2015, section 3.4 (arXiv:1412.6806).
    Differs: sign and channels are kept.
    """
    return _explain("guided_backprop", model, images, targets, _guided, score, max_batch)


def deconvnet(
    model: nn.Module, images: Images, targets: Target, *, score: TargetScore = "logit", max_batch: int = 256
) -> Images:
    """Gradient that passes a ReLU wherever it is positive, active or not: one forward and one backward pass per image.

    Formula: backward through a ReLU: g_in = max(g_out, 0).

    The requirements on the network and the settings are those of `guided_backprop`. Max pooling sends the gradient to
    the position of the maximum.

    Source: Zeiler & Fergus 2014, section 2.1 (arXiv:1311.2901), as a backward pass by Springenberg et al. 2015.
    Differs: sign and channels are kept.
    """
    return _explain("deconvnet", model, images, targets, _deconvolved, score, max_batch)


def rectified_gradient(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    fraction: float = 0.98,
    times_image: bool = True,
    score: TargetScore = "logit",
    max_batch: int = 256,
) -> Images:
    """Gradient that passes a ReLU only at the units of highest activation times gradient, times the image: signed.

    Formula: backward through a ReLU with output a: g_in = g_out * [a > 0] * [a g_out > tau], tau by layer and image.

    A closed unit passes no gradient. In each ReLU layer and image, at least `fraction` of the units are closed: those
    of lowest activation times gradient. An inactive unit is always closed. So `fraction: 0` gives the plain gradient.
    The share of units that are inactive or have a negative gradient gives guided backprop.

    It costs one forward and one backward pass per image, and one selection per layer. The requirements on the network
    are those of `guided_backprop`.

    fraction: part of a layer's units to close, in [0, 1).
    times_image: multiply the map by the image, as in the paper. Then a black pixel gets 0.
    score: score of the target class to differentiate: logit, log_probability, probability or loss (cross entropy).
    max_batch: most images in one pass, at least 1. It limits the memory and changes no map.

    Source: Kim et al. 2019, section 4 (arXiv:1902.04893).
    Differs: the image is the one in [0, 1]. Max pooling keeps its gradient; the paper's proportional redistribution
        and padding are left out. An inactive unit stays closed where the threshold is below 0.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction is {fraction}; expected 0 to below 1, the part of a layer's units to close")
    rule = partial(_strongest, fraction)
    maps = _explain("rectified_gradient", model, images, targets, rule, score, max_batch)
    return images.detach() * maps if times_image else maps


def _guided(_answer: Tensor, passing: Tensor, gradient: Tensor) -> Tensor:
    return gradient.clamp(min=0) * passing


def _deconvolved(_answer: Tensor, _passing: Tensor, gradient: Tensor) -> Tensor:
    return gradient.clamp(min=0)


def _strongest(fraction: float, answer: Tensor, passing: Tensor, gradient: Tensor) -> Tensor:
    product = (answer * gradient).flatten(1)
    closed = int(fraction * product.shape[1] + 1e-6)  # 1e-6: 0.7 * 10 is below 7
    if closed:
        highest = product.topk(product.shape[1] - closed + 1).values  # the last value is the largest of closed units
        passing = passing & (product > highest[:, -1:]).view_as(passing)
    return gradient * passing


def _explain(
    title: str, model: nn.Module, images: Images, targets: Target, rule: Rule, score: TargetScore, max_batch: int
) -> Images:
    with evaluating(model), _rectifying(title, model, rule):
        return torch.cat(
            [gradient_at(model, images[block], targets[block], score) for block in blocks(len(images), max_batch)]
        )


@contextmanager
def _rectifying(title: str, model: nn.Module, rule: Rule) -> Iterator[None]:
    """Apply the rule in the backward pass of each ReLU, inside the `with` block; no module is replaced.

    title: name of the method, for the error messages.
    """
    running: list[nn.Module] = []  # the running modules, the innermost last

    def enter(module: nn.Module, _inputs: object) -> None:
        running.append(module)

    def leave(module: nn.Module, _inputs: object, _output: object) -> None:
        if running and running[-1] is module:  # else another hook failed before this module was entered
            running.pop()

    handles = [module.register_forward_pre_hook(enter) for module in model.modules()]
    handles += [module.register_forward_hook(leave, always_call=True) for module in model.modules()]
    try:
        with _Ruled(title, model, rule, running) as ruled:
            yield
    finally:
        for handle in handles:
            handle.remove()
    if not ruled.used:
        raise ValueError(_without_relu(title, model))


class _Ruled(TorchFunctionMode):
    """Intercepts every torch function, and applies the rule to those that rectify.

    Hooks would come too late for two reasons. A deconvnet needs the gradient that the ReLU's own backward pass cuts
    off. And a ReLU that works in place has overwritten its input.
    """

    def __init__(self, title: str, model: nn.Module, rule: Rule, running: list[nn.Module]) -> None:
        super().__init__()
        self.title, self.model, self.rule, self.running = title, model, rule, running
        self.used = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        module = self.running[-1] if self.running else None
        if func not in RELUS and not (func is F.hardtanh and isinstance(module, nn.ReLU6)):
            return func(*args, **kwargs)
        if not isinstance(module, (nn.ReLU, nn.ReLU6)):
            raise ValueError(_outside(self.title, self.model, module or self.model))
        self.used = True
        features = args[0] if args else kwargs["input"]
        answer = _Rectifier.apply(features, self.rule, 6.0 if isinstance(module, nn.ReLU6) else None)
        return features.copy_(answer) if module.inplace else answer


RELUS = {F.relu, F.relu_, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}


class _Rectifier(torch.autograd.Function):
    """max(x, 0), limited by the ceiling, with the rule as its backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: Rule, ceiling: float | None) -> Tensor:
        answer = x.clamp(0, ceiling)
        ctx.rule, ctx.ceiling = rule, ceiling
        ctx.save_for_backward(answer)
        return answer

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (answer,) = ctx.saved_tensors
        passing = answer > 0 if ctx.ceiling is None else (answer > 0) & (answer < ctx.ceiling)
        return ctx.rule(answer, passing, gradients[0]), None, None


def is_activation(module: nn.Module) -> bool:
    """Return True if the module is one of torch's own non-linearities."""
    return type(module).__module__ == nn.ReLU.__module__ and not isinstance(module, nn.MultiheadAttention)


def _outside(title: str, model: nn.Module, module: nn.Module) -> str:
    name = next((name for name, submodule in model.named_modules() if submodule is module), "")
    where = f"'{name}' ({type(module).__name__})" if name else type(module).__name__
    return (
        f"{title}: {where} calls a ReLU as a function in its forward; expected every ReLU to be a module, because only "
        f"a module can be changed: give {name or 'it'} an nn.ReLU and call this module"
    )


def _without_relu(title: str, model: nn.Module) -> str:
    others = {type(module).__name__: f"'{name}'" for name, module in model.named_modules() if is_activation(module)}
    listed = ", ".join(f"{kind} ({name})" for kind, name in list(others.items())[:4])
    return (
        f"{title}: no ReLU module ran in {type(model).__name__}, whose non-linearities are {listed or 'functions'}; "
        "the method is defined for ReLUs only: choose another method for this network"
    )
