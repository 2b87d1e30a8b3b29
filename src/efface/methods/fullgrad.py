"""FullGrad: the input's gradient, and that of every bias on the way to the logit.

The bias of a module is whatever its output has beyond its derivative times its input. For a convolution or a linear
layer that is its bias; for BatchNorm in eval mode, beta - mean * gamma / sqrt(variance + eps); for the network's own
normalisation, -mean / std; for a ReLU or a maximum, nothing. Other non-linearities and LayerNorm have one that depends
on the image.
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
    """A score in parts, which sum to it.

    image: image times gradient.
    modules: for each module that may have a bias, by name: bias times gradient, of the shape of its output.
    rest: what these leave over of the score, by image. Rounding, where all else in the network is linear or a maximum
        such as ReLU; more, where something else happens outside such modules: a product of two feature maps (squeeze
        and excitation, attention), a tensor added in a `forward` (a class token).
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
    """Image times gradient plus bias times gradient of every layer with places, each part stretched to 0..1, enlarged.

    With psi the map is never negative, and each part's largest value counts as much as another's. One forward and one
    backward pass an image, and memory for the gradient at each module's output. A module that runs several times is one
    part. Networks whose features are not n c h w throughout (ConvNeXt, transformers) are refused.

    score: what is differentiated, of the target class: logit, log_probability, probability or loss (cross entropy).
    psi: each part's absolute values, less their minimum, divided by their maximum, for each image and over all channels
        and places; without, the parts' values as they are: signed, and linear in the gradient.
    max_batch: images in one pass, at least 1; bounds the memory, changes no map.

    Source: Srinivas & Fleuret 2019, sections 3 and 4 (arXiv:1905.00780).
    Differs: images are in [0, 1], so the network's normalisation has a part of its own. Enlarged with pixel centres as
        the grid (align_corners=False), and no 1e-6 in the division: a small gradient gives the same map. The released
        code knows no biases of non-linearities, which the paper defines.
    """
    return _collected(model, images, targets, _bias, score=score, psi=psi, max_batch=max_batch)


def simple_full_grad(
    model: nn.Module, images: Images, targets: Target, *, score: TargetScore = "logit", max_batch: int = 256
) -> Float[Tensor, "n h w"]:
    """FullGrad with the gradient by each bias where FullGrad has bias times gradient: never negative.

    The parts are image times gradient, and the gradient at the output of every layer that has a bias of its own
    (convolution, BatchNorm, GroupNorm and the like); each stretched and enlarged as in `full_grad`, whose cost and
    settings these are.

    Source: the released code of Srinivas & Fleuret 2019 (arXiv:1905.00780), which calls it a convenience.
    Differs: as `full_grad`.
    """
    return _collected(model, images, targets, _one, score=score, psi=True, max_batch=max_batch)


def full_grad_parts(
    model: nn.Module, images: Images, targets: Target, *, score: TargetScore = "logit", max_batch: int = 256
) -> FullGradient:
    """The score as a sum: image times gradient, bias times gradient of each module, and what these leave over.

    Two forward passes and one backward pass an image; the parts of all images are kept. The settings are `full_grad`'s.

    Source: Srinivas & Fleuret 2019, proposition 2 and the implicit biases of section 3 (arXiv:1905.00780).
    Differs: `rest` says how complete it is.
    """
    found, scores = [], []
    for block, image, modules in _parts(model, images, targets, _bias, score=score, max_batch=max_batch):
        found.append((image, modules))
        with evaluating(model), torch.no_grad():
            scores.append(target_scores(model, images[block].detach(), targets[block], score))
    image = torch.cat([image for image, _ in found])
    modules = {name: torch.cat([each[name] for _, each in found]) for name in found[0][1]}
    explained = sum(part.flatten(1).sum(1) for part in (image, *modules.values()))
    return FullGradient(image, modules, torch.cat(scores) - explained)


Bias = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any]], Tensor | None]
"""What a module's gradient is multiplied by, from its name, itself and its arguments; None: it has no part."""


def _collected(
    model: nn.Module, images: Images, targets: Target, bias: Bias, *, score: TargetScore, psi: bool, max_batch: int
) -> Float[Tensor, "n h w"]:
    named, maps = dict(model.named_modules()), []
    for _, image, modules in _parts(model, images, targets, bias, score=score, max_batch=max_batch):
        total = _summed(image, psi=psi)
        for name, part in modules.items():
            if part.ndim == 2:  # of a vector: it has no place in the image
                continue
            if part.ndim != 4 or isinstance(named[name], nn.Linear):
                raise ValueError(
                    f"layer {name!r} ({type(named[name]).__name__}) returns shape {tuple(part.shape)}, its features on "
                    "the last axis; expected n c h w: choose another method, or full_grad_parts for parts as they are"
                )
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
    """Block by block: the images' slice, image times gradient, and each module's part in the network's own order."""
    for block in blocks(len(images), max_batch):
        with evaluating(model), _collecting(model, bias) as modules:
            gradient = gradient_at(model, images[block], targets[block], score)
        ordered = {name: modules[name] for name, _ in model.named_modules() if name in modules}
        yield block, images[block].detach() * gradient, ordered


@contextmanager
def _collecting(model: nn.Module, bias: Bias) -> Iterator[dict[str, Tensor]]:
    """Within: a backward pass adds each module's bias times its gradient to the part of that name."""
    parts: dict[str, Tensor] = {}
    pending: dict[str, Tensor | None] = {}

    def before(name: str, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        pending[name] = bias(name, module, inputs, keywords)  # now: the module may overwrite its input

    def after(name: str, _module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        factor = pending.pop(name, None)
        if factor is not None and isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(partial(collect, name, factor))

    def collect(name: str, factor: Tensor, gradient: Tensor) -> None:
        part, other = factor * gradient, parts.get(name)
        if other is not None and other.shape != part.shape:
            raise ValueError(
                f"layer {name!r} returns shapes {tuple(part.shape)} and {tuple(other.shape)} in one pass; expected one "
                "shape, as its part is one tensor: give each size a module of its own"
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
    """1 for a module that has a bias of its own."""
    own = getattr(module, "bias", None)
    return own.new_ones(()) if isinstance(own, Tensor) else None


def _bias(name: str, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor | None:
    """What a module's output has beyond its derivative times its input; None where that is nothing."""
    if isinstance(module, _WITHOUT) or type(module).__module__ in _WITHOUT_FILES:
        return None
    if not inputs or not all(isinstance(each, Tensor) and each.is_floating_point() for each in inputs):
        return None  # such as an embedding
    if isinstance(module, _BATCH_NORM) and module.running_mean is None:
        raise ValueError(
            f"layer {name!r} ({type(module).__name__}) has no running statistics, so that its bias depends on the "
            "other images of the batch; expected track_running_stats=True"
        )
    if isinstance(module, _AFFINE):
        own = isinstance(module, (*_BATCH_NORM, Normalise)) or module.bias is not None
        return module.forward(torch.zeros_like(inputs[0][:1])) if own else None
    points = [each.detach().requires_grad_() for each in inputs]
    output = module.forward(*(point.clone() for point in points), **keywords)  # copies: it may overwrite its input
    if not isinstance(output, Tensor) or not output.requires_grad:
        return None
    linear = _derivative(name, module, points, output)
    output = output.detach()
    rounding = 16 * torch.finfo(output.dtype).eps * output.abs().amax(tuple(range(1, output.ndim)), keepdim=True)
    bias = output - linear
    return bias.masked_fill(bias.abs() <= rounding, 0.0)  # psi would stretch it to 1


def _derivative(name: str, module: nn.Module, points: list[Tensor], output: Tensor) -> Tensor:
    """A module's derivative at the points, times the points."""
    if isinstance(module, _ELEMENTWISE):  # cheaper, and torch has no second derivative of Hardsigmoid
        (slope,) = torch.autograd.grad(output.sum(), points)
        return slope * points[0].detach()
    way = torch.zeros_like(output, requires_grad=True)  # the way back is linear in it: its derivative is the way there
    try:
        back = torch.autograd.grad((output * way).sum(), points, create_graph=True, materialize_grads=True)
        moved = torch.stack([(each * point.detach()).sum() for each, point in zip(back, points, strict=True)]).sum()
        if not moved.requires_grad:  # a step: flat wherever it has a derivative
            return torch.zeros_like(way)
        (linear,) = torch.autograd.grad(moved, way)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as problem:
        raise ValueError(
            f"layer {name!r} ({type(module).__name__}) has a bias that takes its second derivative, which fails: "
            f"{problem}; use simple_full_grad, which takes none"
        ) from problem
    return linear
