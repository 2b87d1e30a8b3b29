"""The passes of every gradient method: bounded by the row budget, the model afterwards as it was before."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, get_args
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from efface.models.fold import folded
from efface.types import Explained, Images, Method, Of, Targets

Gradient = Callable[[nn.Module, Images, Explained], Images]
"""Whatever stands for the gradient of each point: (model, points, targets) -> points' shape."""


Precision = Literal["fp32", "bf16", "bf16_forced"]
"""What the passes of the network compute in: sums, ways and maps are float32 whatever it is.

bf16: up to twice as fast where the processor computes in it. Measured on a trained ResNet20, 50 passes a map: the ranks
    of SmoothGrad and integrated gradients correlate with those of fp32 by 0.995 and 0.996, those of the gradient by
    0.955 only; so it is refused where a map is one gradient.
bf16_forced: bf16 there, too.
"""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within: evaluation mode, no gradients of parameters (nobody asks for them), autograd on whatever the caller set.

    Afterwards, also after an exception, every module's mode and every parameter's flag is as before.
    """
    modes = [(module, module.training) for module in model.modules()]
    own = (each for module, _ in modes for each in _tensors(module)[0].values() if each is not None)
    flags = [(parameter, parameter.requires_grad) for parameter in own]
    try:  # what is so already is not set again: torch takes a microsecond and more for each
        if any(mode for _, mode in modes):
            model.eval()
        for parameter, flag in flags:
            if flag:
                parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            if module.training != mode:
                module.training = mode
        for parameter, flag in flags:
            if parameter.requires_grad != flag:
                parameter.requires_grad_(flag)


@contextmanager
def evaluating_fast(
    model: nn.Module, images: Images, *, allowed: bool = True, precision: Precision = "fp32", gradients: int = 1
) -> Iterator[nn.Module]:
    """`evaluating`, with a network that answers as the model does: for methods that ask for nothing but its answers.

    Its BatchNorms are folded and its convolutions work on channels last. It is made once for a model and made again
    when a weight, a module or a module's setting has changed, however that was done, which each use compares; a model
    with hooks is used as it is, for they would not be called. Costs two copies of the weights.

    allowed: False for a method that does ask for more: then the model itself.
    precision: of its passes; bf16 answers are float32 again, as are the gradients that come out.
    gradients: how many a map is the mean of.
    """
    check_precision(precision, gradients, allowed=allowed)
    with evaluating(model):
        network = _fast(model, images) if allowed else model
        yield network if precision == "fp32" else _InBf16(network)


def check_precision(precision: str, gradients: int, *, allowed: bool = True) -> None:
    """Refuse bf16 where a map is a single gradient, or where the passes are another method's."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision is {precision!r}; expected {', '.join(get_args(Precision))}")
    if precision != "fp32" and not allowed:
        raise ValueError(f"precision is {precision!r}, but the passes are those of `base`: set it in the base itself")
    if precision == "bf16" and gradients < 2:
        raise ValueError(
            "precision is 'bf16', but the map is a single gradient: in bf16 its ranks correlate with those of fp32 by "
            "0.955 only, for rounding ties and reorders pixels and no mean evens it out; take fp32, or bf16_forced"
        )


class _InBf16(nn.Module):
    """A network whose passes are in bf16, there and back, and whose answers are float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Images) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            answers: Tensor = self.network(images)
        return answers.to(images.dtype)


class _Fast(NamedTuple):
    """A copy, None where nothing is gained by one, and what the network was when it was made."""

    settings: list[Any]
    values: list[Tensor]
    network: nn.Module | None
    plain: list[Any]
    """Settings that are told by which object they are: kept, so that no other one can get their place in memory."""


_FAST: "WeakKeyDictionary[nn.Module, _Fast]" = WeakKeyDictionary()
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _fast(model: nn.Module, images: Images) -> nn.Module:
    modules = [*model.modules()]
    if not len(images) or any(getattr(each, name) for each in modules for name in _HOOKS):
        return model
    values = [each for module in modules for held in _tensors(module) for each in held.values() if each is not None]
    settings = _settings(modules, values)
    found = _FAST.get(model)
    if found is None or found.settings != settings or not _equal(found.values, values):
        made = folded(model, images)
        kept = [each.detach().clone() for each in values]  # versions do not count what is done to `.data`
        plain = [value for each in modules for value in vars(each).values() if isinstance(value, _PLAIN)]
        found = _Fast(settings, kept, None if made is model else made, plain)  # itself would keep it alive
        _FAST[model] = found
    return found.network or model


def _tensors(module: nn.Module) -> tuple[dict[str, nn.Parameter | None], dict[str, Tensor | None]]:
    """A module's own, in a tenth of the time that `parameters` and `buffers` take."""
    return module._parameters, module._buffers  # noqa: SLF001


_PLAIN = (int, float, str, tuple)  # None and what is true or false are among them, or one object each


def _settings(modules: list[nn.Module], values: list[Tensor]) -> list[Any]:
    """All that a network's answers depend on but the numbers in its tensors: another list where it is changed.

    An attribute is told by which object it is: a fifth of the time that comparing takes. One that is set anew to the
    same costs another copy.
    """
    told = [
        (type(each), [(name, id(value)) for name, value in vars(each).items() if name != "training"])
        for each in modules
    ]
    return [told, [(each.shape, each.dtype, each.device) for each in values]]


def _equal(before: list[Tensor], now: list[Tensor]) -> bool:
    if all(each.device.type == "cpu" for each in now):
        return all(map(torch.equal, before, now))
    same = [(one == other).all() for one, other in zip(before, now, strict=True)]
    return bool(torch.stack([each.to(same[0].device) for each in same]).all())  # one answer to wait for


def gradient_at(model: nn.Module, points: Images, targets: Explained, of: Of = "logit") -> Images:
    """Gradient of each point's target score at that point: one forward and one backward pass of them all."""
    points = points.detach().clone().requires_grad_()
    scores = scores_of(differentiable(model, points), targets, of)
    (gradient,) = torch.autograd.grad(scores.sum(), points)
    return gradient


def differentiable(model: nn.Module, points: Images) -> Float[Tensor, "n k"]:
    """The network's answers to points that require a gradient, checked to have one."""
    logits = logits_of(model, points)
    if not logits.requires_grad:
        raise ValueError(
            f"{type(model).__name__} returns logits without a gradient; expected a differentiable network: "
            "remove no_grad and detach from its forward"
        )
    return logits


def gradients_at(
    model: nn.Module,
    point: Callable[[slice, int], Images],
    targets: Explained,
    *,
    count: int,
    rows: int,
    of: Of = "logit",
    base: Gradient | None = None,
) -> Iterator[tuple[slice, int, Float[Tensor, "s n c h w"]]]:
    """Gradients of the target scores at `count` points for each image, in passes of at most `rows` points.

    Yields, block by block: the images' slice, the number of the pass's first point, the gradients from there on.

    point: makes one point for each image of a block: (block, number of the point) -> images.
    base: what stands for the gradient, (model, points, targets) -> points' shape; then `of` is its own.
    """
    for block in blocks(len(targets), rows):
        own = targets[block]
        together = max(1, rows // len(own))
        for start in range(0, count, together):
            points = torch.stack([point(block, k) for k in range(start, min(start + together, count))])
            each = own.repeat(len(points), *(1,) * (own.ndim - 1))
            flat = points.flatten(0, 1)
            gradients = gradient_at(model, flat, each, of) if base is None else base(model, flat, each)
            yield block, start, gradients.unflatten(0, points.shape[:2])


def target_scores(model: nn.Module, images: Images, targets: Explained, of: Of = "logit") -> Float[Tensor, " n"]:
    """The number that is explained for each image; none depends on the batch's other images.

    targets: a class for each image; or weights of the classes, n k: then it is the weighted sum of the logits.
    of: logit; log_probability or probability of the target class; loss, its cross entropy (minus the log probability).
    """
    return scores_of(logits_of(model, images), targets, of)


def scores_of(logits: Float[Tensor, "n k"], targets: Explained, of: Of = "logit") -> Float[Tensor, " n"]:
    """`target_scores` of answers that are there already."""
    targets = targets.clone()  # they may come from inference_mode, whose tensors autograd refuses
    if targets.is_floating_point():
        if of != "logit":
            raise ValueError(f"of is {of!r}, but weights of the classes stand for the target: expected of='logit'")
        return (logits * targets).sum(1)
    match of:
        case "logit":
            return logits.gather(1, targets[:, None]).squeeze(1)
        case "log_probability":
            return F.logsigmoid(-odds_against(logits, targets))
        case "probability":
            return F.logsigmoid(-odds_against(logits, targets)).exp()  # a sigmoid's own gradient is 0 where it is 1
        case "loss":
            return -F.logsigmoid(-odds_against(logits, targets))
    raise ValueError(f"of is {of!r}; expected logit, log_probability, probability or loss")


def odds_against(logits: Float[Tensor, "n k"], targets: Targets) -> Float[Tensor, " n"]:
    """Logarithm of the odds that the target is wrong: log sum exp of the other logits, less the target's own.

    The cross entropy is its softplus, and grows as it does. A softmax in float32 is 1 from a margin of 17 on, and the
    target's own logit is then lost from the gradient; here both logits' parts keep their sizes at any margin.
    """
    own = targets[:, None].clone()  # it may come from inference_mode, whose tensors autograd refuses
    if logits.shape[1] == 1:
        raise ValueError("the network has one class, whose probability is always 1; expected two or more: take logit")
    logits = logits.float() if logits.dtype.itemsize < 4 else logits  # bytes: those of autocast are rounded
    others = logits.scatter(1, own, -torch.inf).logsumexp(1)
    return others - logits.gather(1, own).squeeze(1)


def logits_of(model: nn.Module, images: Images) -> Float[Tensor, "n k"]:
    """The network's answers, checked to be logits."""
    logits = model(images)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"{type(model).__name__} answers {len(images)} images with {found}; expected logits of shape "
            f"({len(images)}, classes): wrap the network so that it returns them"
        )
    return logits


def offer(method: Method, model: nn.Module, images: Images, targets: Explained, **offered: Any) -> Any:
    """Call a method with those of the `offered` keywords that it takes."""
    return method(model, images, targets, **{name: value for name, value in offered.items() if takes(method, name)})


def takes(method: Method, name: str) -> bool:
    """Whether a method has a keyword of this name; one that a study gave names only those it leaves open."""
    wants = getattr(method, "wants", None)
    if wants is not None:  # a Call
        return bool(wants(name))
    return name in inspect.signature(method).parameters


def blocks(count: int, rows: int) -> Iterator[slice]:
    """Slices of at most `rows` images that cover them all."""
    at_least_one("rows", rows)
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def at_once(images: Tensor, rows: int) -> int:
    """Images in a pass that keeps nothing for a way back: at most `rows`, on a CPU so few that its cache holds them.

    Measured: a ResNet20 answers 256 images of 32x32 in passes of 32 in three quarters of the time of one pass, a
    SqueezeNet images of 224x224 in passes of 6 in three quarters of the time of passes of 8.
    """
    if images.device.type != "cpu":
        return rows
    return min(rows, max(6, (1 << 15) // max(1, images.shape[-2] * images.shape[-1])))


def at_least_one(setting: str, number: int) -> None:
    """Refuse a count below one."""
    if number < 1:
        raise ValueError(f"{setting} is {number}; expected a whole number of at least 1: raise it")
