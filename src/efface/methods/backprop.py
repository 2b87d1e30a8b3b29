"""Gradients whose way back through each ReLU is changed: guided backprop, deconvnet, rectified gradient."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from efface.methods.gradients import gradient_at
from efface.models.evaluation import evaluating
from efface.models.memory import blocks
from efface.types import Images, Target, TargetScore

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(a ReLU's answer, True where it lets changes through, gradient of that answer) -> gradient of its input."""


def guided_backprop(
    model: nn.Module, images: Images, targets: Target, *, score: TargetScore = "logit", max_batch: int = 256
) -> Images:
    """Gradient that passes a ReLU only where it is positive and the ReLU is active: one forward, one backward pass.

    Works on networks whose ReLUs (and ReLU6s) are modules, in place or not, run once or often; refuses one that
    rectifies outside of them, by the name of the module that does. Other non-linearities keep their own gradient; a
    network that has no ReLU at all is refused.

    score: what is differentiated, of the target class: logit, log_probability, probability or loss (cross entropy).
    max_batch: images in one pass, at least 1; bounds the memory, changes no map.

    Source: Springenberg, Dosovitskiy, Brox & Riedmiller 2015, section 3.4 (arXiv:1412.6806).
    Differs: sign and channels are kept.
    """
    return _explain("guided_backprop", model, images, targets, _guided, score, max_batch)


def deconvnet(
    model: nn.Module, images: Images, targets: Target, *, score: TargetScore = "logit", max_batch: int = 256
) -> Images:
    """Gradient that passes a ReLU wherever it is positive, active or not: one forward and one backward pass an image.

    What it needs of the network, and the settings: `guided_backprop`. Max pooling sends it to where the maximum was.

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

    At least `fraction` of the units of each ReLU layer and image are closed, those of lowest activation times
    gradient; an inactive unit is always closed. So 0 is the gradient, and the share of units that are inactive or
    have a negative gradient is guided backprop. One forward and one backward pass an image, and a selection a layer.
    What it needs of the network: `guided_backprop`.

    fraction: part of a layer's units that is closed, in [0, 1).
    times_image: multiply by the image, as published; then a black pixel gets 0.
    score: what is differentiated, of the target class: logit, log_probability, probability or loss (cross entropy).
    max_batch: images in one pass, at least 1; bounds the memory, changes no map.

    Source: Kim et al. 2019, section 4 (arXiv:1902.04893).
    Differs: the image is the one in [0, 1]; max pooling keeps its gradient (the paper's proportional redistribution
        and padding are left out); an inactive unit stays closed where the threshold is below 0.
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
        highest = product.topk(product.shape[1] - closed + 1).values  # its last is the highest of the closed ones
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
    """Within: the way back through each ReLU follows the rule; nothing of the model is replaced.

    title: the method's name, for the errors.
    """
    within: list[nn.Module] = []  # the modules that are running, the innermost last

    def enter(module: nn.Module, _inputs: object) -> None:
        within.append(module)

    def leave(module: nn.Module, _inputs: object, _output: object) -> None:
        if within and within[-1] is module:  # else another hook has failed before it began
            within.pop()

    handles = [module.register_forward_pre_hook(enter) for module in model.modules()]
    handles += [module.register_forward_hook(leave, always_call=True) for module in model.modules()]
    try:
        with _Ruled(title, model, rule, within) as ruled:
            yield
    finally:
        for handle in handles:
            handle.remove()
    if not ruled.used:
        raise ValueError(_without_relu(title, model))


class _Ruled(TorchFunctionMode):
    """Sees every torch function that is called, and does those that rectify by the rule.

    Hooks would be too late: a deconvnet needs the gradient that the ReLU's own backward pass has cut off already, and
    a ReLU in place has overwritten its input.
    """

    def __init__(self, title: str, model: nn.Module, rule: Rule, within: list[nn.Module]) -> None:
        super().__init__()
        self.title, self.model, self.rule, self.within = title, model, rule, within
        self.used = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        module = self.within[-1] if self.within else None
        if func not in RELUS and not (func is F.hardtanh and isinstance(module, nn.ReLU6)):
            return func(*args, **kwargs)
        if not isinstance(module, (nn.ReLU, nn.ReLU6)):
            raise ValueError(_outside(self.title, self.model, module or self.model))
        self.used = True
        found = args[0] if args else kwargs["input"]
        answer = _Rectifier.apply(found, self.rule, 6.0 if isinstance(module, nn.ReLU6) else None)
        return found.copy_(answer) if module.inplace else answer


RELUS = {F.relu, F.relu_, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}


class _Rectifier(torch.autograd.Function):
    """max(x, 0), at most the ceiling, with the rule as its backward pass."""

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
    """Whether it is one of torch's own non-linearities."""
    return type(module).__module__ == nn.ReLU.__module__ and not isinstance(module, nn.MultiheadAttention)


def _outside(title: str, model: nn.Module, module: nn.Module) -> str:
    name = next((name for name, each in model.named_modules() if each is module), "")
    where = f"'{name}' ({type(module).__name__})" if name else type(module).__name__
    return (
        f"{title}: {where} calls a ReLU as a function in its forward; expected every ReLU to be a module, which alone "
        f"can be changed: give {name or 'it'} an nn.ReLU and call that"
    )


def _without_relu(title: str, model: nn.Module) -> str:
    others = {type(each).__name__: f"'{name}'" for name, each in model.named_modules() if is_activation(each)}
    found = ", ".join(f"{kind} ({name})" for kind, name in list(others.items())[:4])
    return (
        f"{title}: no ReLU module ran in {type(model).__name__}, whose non-linearities are {found or 'functions'}; "
        "it is defined for ReLUs only: take another method for this network"
    )
