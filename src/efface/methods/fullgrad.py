"""FullGrad: the gradient with respect to the input and to every bias of the network.

`efface.methods.biases` says what the bias of a module is.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.types import Images, Target, TargetScore
from efface.methods.biases import implicit_bias, one
from efface.methods.gradients import gradient_at
from efface.models.copied import copied_network
from efface.models.evaluation import evaluating
from efface.models.laid_out import FeatureLayer
from efface.models.memory import blocks
from efface.models.of_tokens import WITHOUT_IMAGES
from efface.models.places import placed
from efface.models.scores import scores_of, target_scores

_ROUNDING = 1e-6  # fraction of the parts' sums in float64, of which layers that compute in float32 lose 1e-7
_OTHERS = "cp_lrp or integrated_gradients"


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
    times is one part.

    Features on the last axis (ConvNeXt) and tokens are laid out as the places lie in the image. Prefix tokens, such as
    the class token, have no place, so their parts are in no map. `full_grad_parts` has them. For a network with such
    layers, the parts of the first image must sum to its logit. This costs a copy of the network, and three passes of
    this image in float64. Attention multiplies features by features, which no part has, so a transformer raises a
    ValueError. So does a layer whose places are not known, as one that works on windows.

    score: score of the target class to differentiate: logit, log_probability, probability or loss (cross entropy).
    psi: take absolute values of each part, subtract their minimum, and divide by their maximum, for each image over all
        channels and places. Without it, the parts keep their values: signed, and linear in the gradient.
    max_batch: most images in one pass, at least 1. It limits the memory and changes no map.

    Source: Srinivas & Fleuret 2019, sections 3 and 4 (arXiv:1905.00780).
    Differs: images are in [0, 1], so the network's normalisation has a part of its own. Parts are enlarged with pixel
        centres as the grid (align_corners=False). The division has no 1e-6, so a small gradient gives the same map.
        The released code leaves out the biases of non-linearities, which the paper defines.
    """
    return _collected(model, images, targets, implicit_bias, _lacks_parts, score=score, psi=psi, max_batch=max_batch)


def simple_full_grad(
    model: nn.Module, images: Images, targets: Target, *, score: TargetScore = "logit", max_batch: int = 256
) -> Float[Tensor, "n h w"]:
    """FullGrad with the gradient at each bias in place of bias times gradient: never negative.

    Formula: map = psi(x * g) + sum over layers l and their channels of enlarged(psi(g_l)).

    The parts are image times gradient, and the gradient at the output of every layer with a bias parameter
    (convolution, BatchNorm, LayerNorm and the like). Each part is scaled, laid out and enlarged as in `full_grad`. Cost
    and settings are those of `full_grad`. The parts need not sum to the logit, so a transformer gets maps if each of
    its biases is that of a layer which runs by itself (timm's ViT). Otherwise it raises a ValueError.

    Source: the released code of Srinivas & Fleuret 2019 (arXiv:1905.00780), which calls it a convenience.
    Differs: as `full_grad`.
    """
    return _collected(model, images, targets, one, _lacks_biases, score=score, psi=True, max_batch=max_batch)


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
    for block, image, modules in _parts(model, images, targets, implicit_bias, score=score, max_batch=max_batch):
        parts.append((image, modules))
        with evaluating(model), torch.no_grad():
            scores.append(target_scores(model, images[block].detach(), targets[block], score))
    image = torch.cat([image for image, _ in parts])
    modules = {name: torch.cat([contributions[name] for _, contributions in parts]) for name in parts[0][1]}
    explained = sum(part.flatten(1).sum(1) for part in (image, *modules.values()))
    return FullGradient(image, modules, torch.cat(scores) - explained)


Bias = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any]], Tensor | None]
"""(name, module, inputs, keywords) -> factor of the gradient at the module's output; None: the module has no part."""
Lacks = Callable[[nn.Module, Images, Target, Mapping[str, Tensor]], str]
"""(model, image, target, parts by module) -> in words what the parts lack; "": nothing."""


def _collected(
    model: nn.Module,
    images: Images,
    targets: Target,
    bias: Bias,
    lacks: Lacks,
    *,
    score: TargetScore,
    psi: bool,
    max_batch: int,
) -> Float[Tensor, "n h w"]:
    maps: list[Tensor] = []
    for block, image, modules in _parts(model, images, targets, bias, score=score, max_batch=max_batch):
        layers = {name: _placed(model, images[block], name, part) for name, part in modules.items()}
        turned = any(layer is not None and layer.axes != "n c h w" for layer in layers.values())
        if not maps and turned and (why := lacks(model, images[:1], targets[:1], modules)):
            raise ValueError(f"{type(model).__name__} {why}; choose another method, such as {_OTHERS}")
        total = _summed(image, psi=psi)
        for name, layer in layers.items():
            if layer is not None:
                small = _summed(layer.as_features(modules[name]), psi=psi)[:, None]
                total += F.interpolate(small, size=images.shape[2:], mode="bilinear", align_corners=False).squeeze(1)
        maps.append(total)
    return torch.cat(maps)


def _placed(model: nn.Module, images: Images, name: str, part: Tensor) -> FeatureLayer | None:
    """Return the layer of a part with its layout; None for a vector, which has no place in the image.

    ValueError: its places are not known.
    """
    if part.ndim == 2 and len(part) == len(images):
        return None
    layer = WITHOUT_IMAGES if part.ndim == 2 else placed(model, images, name)
    if isinstance(layer, FeatureLayer):
        return layer
    raise ValueError(
        f"layer {name!r} ({type(model.get_submodule(name)).__name__}) returns shape {tuple(part.shape)}, and its bias "
        f"has no known place in the image: {layer}; choose another method, such as {_OTHERS}, or full_grad_parts for "
        "unchanged parts"
    )


def _lacks_parts(model: nn.Module, image: Images, target: Target, _: Mapping[str, Tensor]) -> str:
    """Return in words that the parts of an image do not sum to its logit; "" if they do, up to rounding."""
    try:
        with torch.inference_mode(False):
            parts = full_grad_parts(copied_network(model).double(), image.detach().clone().double(), target)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        return f"fails in float64, in which FullGrad checks that its parts sum to the logit: {error}"
    sums = torch.stack([part.sum() for part in (parts.image, *parts.modules.values(), parts.rest)]).abs()
    if sums[-1] <= _ROUNDING * sums.sum():
        return ""
    return (
        f"computes what is in no part of FullGrad, so its parts miss the logit of the first image by {sums[-1]:.2g}: "
        "it multiplies features by features, as attention does, or adds a tensor outside its layers"
    )


def _lacks_biases(model: nn.Module, image: Images, target: Target, modules: Mapping[str, Tensor]) -> str:
    """Return in words which biases have no part, although the logit depends on them; "" if all have one."""
    names = [name for name, _ in model.named_parameters() if name.rpartition(".")[0] not in modules]
    with evaluating(model):
        own = {n: model.get_parameter(n).detach().clone().requires_grad_() for n in names if n.endswith("bias")}
        logit = scores_of(torch.func.functional_call(model, own, (image.detach().clone(),)), target)
        found = torch.autograd.grad(logit.sum(), [*own.values()], allow_unused=True) if logit.requires_grad else ()
    used = [name for name, gradient in zip(own, found, strict=bool(found)) if gradient is not None and gradient.any()]
    return f"uses {used[0]!r} outside a layer of its own, where FullGrad sees no gradient" if used else ""


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
