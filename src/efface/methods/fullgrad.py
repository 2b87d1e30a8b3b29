"""FullGrad: the gradient with respect to the input and to every bias of the network.

The bias of a module is its output minus its derivative times its input:

convolution, linear layer: the bias parameter.
BatchNorm in eval mode: beta - mean * gamma / sqrt(variance + eps).
the network's own normalisation: -mean / std.
ReLU, maximum: 0.
other non-linearities, LayerNorm: a bias that depends on the image.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from efface.methods.gradients import gradient_at
from efface.models.evaluation import evaluating
from efface.models.layout import layouts
from efface.models.memory import blocks
from efface.models.normalise import Normalise
from efface.models.scores import target_scores
from efface.types import Images, Target, TargetScore

_AFFINE = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, Normalise),
)
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_WITHOUT = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU)
_WITHOUT_FILES = {f"torch.nn.modules.{name}" for name in ("pooling", "dropout", "flatten")}
_ELEMENTWISE = (
    *(nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.GELU, nn.Mish, nn.ELU, nn.CELU, nn.SELU),
    *(nn.Sigmoid, nn.Tanh, nn.Softplus),
)


class FullGradient(NamedTuple):
    """Parts of a score, which sum to the score.

    image: image times gradient.
    modules: bias times gradient, by name of the module, in the shape of its output; for each module that may have a
        bias.
    rest: score minus the sum of these parts, per image. It is rounding if the rest of the network is linear or a
        maximum such as ReLU. It is more if other operations run outside such modules: a product of two feature maps
        (squeeze and excitation, attention), or a tensor that is added in a `forward` (a class token).
    """

    image: Images
    modules: dict[str, Tensor]
    rest: Float[Tensor, " n"]


def full_grad(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    score: TargetScore = "logit",
    psi: bool = True,
    max_batch: int = 256,
) -> Float[Tensor, "n h w"]:
    """Image times gradient plus bias times gradient of every spatial layer, each part scaled to [0, 1] and enlarged.

    Formula: map = psi(x * g) + sum over layers l and their channels of enlarged(psi(b_l * g_l)).

    With psi the map is never negative, and the largest value of every part has the same weight. It costs one forward
    and one backward pass per image, and memory for the gradient at each module's output. A module that runs several
    times is one part. A network with a layer whose features are not n c h w (ConvNeXt, transformers) raises a
    ValueError.

    score: score of the target class to differentiate: logit, log_probability, probability or loss (cross entropy).
    psi: take absolute values of each part, subtract their minimum, and divide by their maximum, for each image over all
        channels and places. Without it, the parts keep their values: signed, and linear in the gradient.
    max_batch: most images in one pass, at least 1. It limits the memory and changes no map.

    Source: Srinivas & Fleuret 2019, sections 3 and 4 (arXiv:1905.00780).
    Differs: images are in [0, 1], so the network's normalisation has a part of its own. Parts are enlarged with pixel
        centres as the grid (align_corners=False). The division has no 1e-6, so a small gradient gives the same map.
        The released code leaves out the biases of non-linearities, which the paper defines.
    """
    return _collected(model, images, targets, _bias, score=score, psi=psi, max_batch=max_batch)


def simple_full_grad(
    model: nn.Module, images: Images, targets: Target, *, score: TargetScore = "logit", max_batch: int = 256
) -> Float[Tensor, "n h w"]:
    """FullGrad with the gradient at each bias in place of bias times gradient: never negative.

    Formula: map = psi(x * g) + sum over layers l and their channels of enlarged(psi(g_l)).

    The parts are image times gradient, and the gradient at the output of every layer with a bias parameter
    (convolution, BatchNorm, GroupNorm and the like). Each part is scaled and enlarged as in `full_grad`. Cost and
    settings are those of `full_grad`.

    Source: the released code of Srinivas & Fleuret 2019 (arXiv:1905.00780), which calls it a convenience.
    Differs: as `full_grad`.
    """
    return _collected(model, images, targets, _one, score=score, psi=True, max_batch=max_batch)


def full_grad_parts(
    model: nn.Module, images: Images, targets: Target, *, score: TargetScore = "logit", max_batch: int = 256
) -> FullGradient:
    """Score as a sum: image times gradient, bias times gradient of each module, and the remaining part.

    It costs two forward passes and one backward pass per image. The parts of all images stay in memory. The settings
    are those of `full_grad`.

    Source: Srinivas & Fleuret 2019, proposition 2 and the implicit biases of section 3 (arXiv:1905.00780).
    Differs: `rest` shows how complete the sum is.
    """
    parts, scores = [], []
    for block, image, modules in _parts(model, images, targets, _bias, score=score, max_batch=max_batch):
        parts.append((image, modules))
        with evaluating(model), torch.no_grad():
            scores.append(target_scores(model, images[block].detach(), targets[block], score))
    image = torch.cat([image for image, _ in parts])
    modules = {name: torch.cat([contributions[name] for _, contributions in parts]) for name in parts[0][1]}
    explained = sum(part.flatten(1).sum(1) for part in (image, *modules.values()))
    return FullGradient(image, modules, torch.cat(scores) - explained)


Bias = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any]], Tensor | None]
"""(name, module, inputs, keywords) -> factor of the gradient at the module's output; None: the module has no part."""


def _collected(
    model: nn.Module, images: Images, targets: Target, bias: Bias, *, score: TargetScore, psi: bool, max_batch: int
) -> Float[Tensor, "n h w"]:
    named, maps = dict(model.named_modules()), []
    for _, image, modules in _parts(model, images, targets, bias, score=score, max_batch=max_batch):
        total = _summed(image, psi=psi)
        for name, part in modules.items():
            if part.ndim == 2:  # a vector has no position in the image
                continue
            if part.ndim != 4 or isinstance(named[name], nn.Linear):
                raise ValueError(
                    f"layer {name!r} ({type(named[name]).__name__}) returns shape {tuple(part.shape)}, its features on "
                    "the last axis; expected n c h w: choose another method, such as cp_lrp or integrated_gradients, "
                    "or full_grad_parts for unchanged parts"
                )
            if (layout := layouts(model, images).get(name)) and layout.is_channels_last and not layout.is_feature_map:
                part = part.movedim(3, 1)
            small = _summed(part, psi=psi)[:, None]
            total += F.interpolate(small, size=images.shape[2:], mode="bilinear", align_corners=False).squeeze(1)
        maps.append(total)
    return torch.cat(maps)


def _summed(part: Float[Tensor, "n c h w"], *, psi: bool) -> Float[Tensor, "n h w"]:
    if psi:
        part = part.abs()
        part = part - part.amin((1, 2, 3), keepdim=True)
        part = part / part.amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(part.dtype).tiny)
    return part.sum(1)


def _parts(
    model: nn.Module, images: Images, targets: Target, bias: Bias, *, score: TargetScore, max_batch: int
) -> Iterator[tuple[slice, Images, dict[str, Tensor]]]:
    """Yield for each block: slice of the images, image times gradient, and the modules' parts in network order."""
    for block in blocks(len(images), max_batch):
        with evaluating(model), _collecting(model, bias) as modules:
            gradient = gradient_at(model, images[block], targets[block], score)
        ordered = {name: modules[name] for name, _ in model.named_modules() if name in modules}
        yield block, images[block].detach() * gradient, ordered


@contextmanager
def _collecting(model: nn.Module, bias: Bias) -> Iterator[dict[str, Tensor]]:
    """Collect each module's bias times gradient during backward passes, inside the `with` block.

    The dict that is yielded holds the part of each module by name.
    """
    parts: dict[str, Tensor] = {}
    pending: dict[str, Tensor | None] = {}

    def before(name: str, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        pending[name] = bias(name, module, inputs, keywords)  # before the module can overwrite its input

    def after(name: str, _module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        factor = pending.pop(name, None)
        if factor is not None and isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(partial(collect, name, factor))

    def collect(name: str, factor: Tensor, gradient: Tensor) -> None:
        part, other = factor * gradient, parts.get(name)
        if other is not None and other.shape != part.shape:
            raise ValueError(
                f"layer {name!r} returns shapes {tuple(part.shape)} and {tuple(other.shape)} in one pass; expected one "
                "shape, because its part is one tensor: give each size a module of its own"
            )
        parts[name] = part if other is None else other + part

    handles = []
    try:
        for name, module in model.named_modules():
            if next(module.children(), None) is None:
                handles.append(module.register_forward_pre_hook(partial(before, name), with_kwargs=True))
                handles.append(module.register_forward_hook(partial(after, name)))
        yield parts
    finally:
        for handle in handles:
            handle.remove()


def _one(_name: str, module: nn.Module, _inputs: tuple[Any, ...], _keywords: dict[str, Any]) -> Tensor | None:
    """Return 1 for a module with a bias parameter, else None."""
    own = getattr(module, "bias", None)
    return own.new_ones(()) if isinstance(own, Tensor) else None


def _bias(name: str, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor | None:
    """Return a module's output minus its derivative times its input; None where this is always 0."""
    if isinstance(module, _WITHOUT) or type(module).__module__ in _WITHOUT_FILES:
        return None
    if not inputs or not all(isinstance(value, Tensor) and value.is_floating_point() for value in inputs):
        return None  # such as an embedding
    if isinstance(module, _BATCH_NORM) and module.running_mean is None:
        raise ValueError(
            f"layer {name!r} ({type(module).__name__}) has no running statistics, so its bias depends on the other "
            "images of the batch; expected track_running_stats=True"
        )
    if isinstance(module, _AFFINE):
        own = isinstance(module, (*_BATCH_NORM, Normalise)) or module.bias is not None
        return module.forward(torch.zeros_like(inputs[0][:1])) if own else None
    points = [value.detach().requires_grad_() for value in inputs]
    output = module.forward(*(point.clone() for point in points), **keywords)  # clones: forward may work in place
    if not isinstance(output, Tensor) or not output.requires_grad:
        return None
    linear = _derivative(name, module, points, output)
    output = output.detach()
    rounding = 16 * torch.finfo(output.dtype).eps * output.abs().amax(tuple(range(1, output.ndim)), keepdim=True)
    bias = output - linear
    return bias.masked_fill(bias.abs() <= rounding, 0.0)  # psi would scale rounding errors to 1


def _derivative(name: str, module: nn.Module, points: list[Tensor], output: Tensor) -> Tensor:
    """Return a module's derivative at the points, times the points."""
    if isinstance(module, _ELEMENTWISE):  # cheaper, and torch lacks the second derivative of Hardsigmoid
        (slope,) = torch.autograd.grad(output.sum(), points)
        return slope * points[0].detach()
    # the backward pass is linear in `way`, so its derivative by `way` is the forward derivative
    way = torch.zeros_like(output, requires_grad=True)
    try:
        back = torch.autograd.grad((output * way).sum(), points, create_graph=True, materialize_grads=True)
        moved = torch.stack(
            [(gradient * point.detach()).sum() for gradient, point in zip(back, points, strict=True)]
        ).sum()
        if not moved.requires_grad:  # a step function has derivative 0
            return torch.zeros_like(way)
        (linear,) = torch.autograd.grad(moved, way)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as problem:
        raise ValueError(
            f"layer {name!r} ({type(module).__name__}) has a bias that needs the layer's second derivative, which "
            f"fails: {problem}; use simple_full_grad, which needs none"
        ) from problem
    return linear
