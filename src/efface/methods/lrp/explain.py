"""Relevance of an image's values, by a set of rules; and the method for convolutional networks."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.types import Images, Target, TargetScore
from efface.methods.lrp import attention, elementwise, layers, norms
from efface.methods.lrp.graph import read_point, refusal, unruled
from efface.methods.lrp.mode import Propagation
from efface.methods.lrp.rules import Rules, rules_of
from efface.models.evaluation import evaluating
from efface.models.memory import blocks
from efface.models.scores import differentiable, scores_of
from efface.plug.shared_settings import with_settings_of

HANDLERS = layers.HANDLERS | norms.HANDLERS | elementwise.HANDLERS | attention.HANDLERS
"""The replacements of all torch functions that have one."""


@with_settings_of(rules_of, after="rules")
def lrp(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    rules: str = "epsilon_plus",
    low: float = 0.0,
    high: float = 1.0,
    score: TargetScore = "logit",
    max_batch: int = 256,
    **replaced: Any,
) -> Images:
    """Relevance of each value of the image, passed back through each layer by that layer's rule: signed.

    The relevance of the target class starts at its logit. Without biases the map sums to the logit, up to `epsilon`;
    each bias keeps its share. The map is the relevance at the input of the first layer, after the normalisation. A
    BatchNorm counts as part of the layer right before it, and else as a layer of its own with the epsilon rule. The
    summands of a residual sum share in proportion to their values. Attention weights and sigmoid gates count as
    weights. A LayerNorm divides by a constant. The input of any other activation takes all relevance of its output. A
    network with an operation that has no rule raises a ValueError that names the module.

    It costs one forward and one backward pass per image. The rules z_plus, gamma and alpha_beta run each layer two to
    four times in both.

    rules: set of rules: epsilon, gamma, epsilon_plus (epsilon in linear layers, z_plus in convolutions),
        epsilon_plus_flat (and flat in the first layer), epsilon_alpha2_beta1, epsilon_alpha2_beta1_flat, or
        epsilon_gamma_box (gamma in convolutions, z_box in the first layer).
    linear, conv, first: rule of linear layers, of convolutions, and of the first of both, in place of the set's:
        epsilon, gamma, z_plus or alpha_beta. The first layer may also have flat, w_square or z_box.
    epsilon: number added to the size of a layer's output, in its units, from 0. It takes relevance from weak outputs;
        0 gives the gradient times the input of the layer.
    gamma: factor by which contributions of the output's sign are raised, from 0.
    alpha: factor of the positive contributions, from 1; the negative ones have alpha - 1.
    low, high: range of a pixel in [0, 1], for z_box.
    score: score of the target class whose gradient at the logits starts the relevance: logit, log_probability,
        probability or loss (cross entropy).
    max_batch: most images in one pass, at least 1. It limits the memory and changes no map.

    Source: Bach et al. 2015, doi 10.1371/journal.pone.0130140; Montavon et al. 2019, doi 10.1007/978-3-030-28954-6_10.
    Differs: the rules are those of zennit's composites, with the same numbers; but the relevance starts at the logit
        and not at 1, and a BatchNorm that no layer precedes has the epsilon rule.
    """
    chosen = rules_of(rules, **replaced)
    _check_range(low, high)
    return relevance("lrp", model, images, targets, chosen, score=score, max_batch=max_batch, pixel_range=(low, high))


@with_settings_of(lrp, but=("score", "max_batch"))
def check_lrp(*, rules: str = "epsilon_plus", low: float = 0.0, high: float = 1.0, **chosen: Any) -> None:
    """Raise ValueError for settings of `lrp` that are wrong for every network and image."""
    rules_of(rules, **chosen)
    _check_range(low, high)


def _check_range(low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"low is {low:g} and high is {high:g}; expected the range of a pixel: low below high")


def relevance(
    title: str,
    model: nn.Module,
    images: Images,
    targets: Target,
    rules: Rules,
    *,
    score: TargetScore = "logit",
    max_batch: int = 256,
    pixel_range: tuple[float, float] = (0.0, 1.0),
) -> Images:
    """Return the relevance at the input of the first layer, by the rules.

    title: name of the method, for messages. pixel_range: of a pixel, for the rule z_box.

    ValueError: an operation of the network has no rule.
    """
    images = images.detach()
    maps: list[Images] = []
    with evaluating(model):
        bounds = (
            _bounds(model, images, pixel_range) if rules.first is not None and rules.first.kind == "z_box" else None
        )
        for block in blocks(len(images), max_batch):
            mode, logits = propagated(title, model, images[block], rules, bounds=bounds)
            point = checked(mode, logits, model, images[:1])
            maps.append(_read(mode, point, scores_of(logits, targets[block], score)))
    return torch.cat(maps)


def checked(
    mode: Propagation, logits: Float[Tensor, "n k"], model: nn.Module, image: Float[Tensor, "1 c h w"]
) -> Tensor:
    """Return the tensor at which relevance is read. ValueError: an operation of the network has no rule.

    image: one image, for a second pass that finds the module of such an operation.
    """
    point, nodes = read_point(mode, logits)
    if unruled(mode, nodes) is not None:
        given = {"bounds": mode.bounds, "keeps_attention": mode.keeps_attention}
        raise refusal(model, lambda context: propagated(mode.title, model, image, mode.rules, **given, inside=context))
    return point


def propagated(
    title: str,
    model: nn.Module,
    images: Images,
    rules: Rules,
    *,
    bounds: Any = None,
    keeps_attention: bool = False,
    inside: Any = None,
) -> tuple[Propagation, Float[Tensor, "n k"]]:
    """Return the context of a forward pass with the rules, and the logits, whose gradients are changed by the rules.

    inside: another context in which the network runs.
    """
    points = images.detach().clone().requires_grad_()
    with Propagation(HANDLERS, rules, points, title, bounds=bounds, keeps_attention=keeps_attention) as mode:
        if inside is None:
            return mode, differentiable(model, points)
        with inside:
            return mode, differentiable(model, points)


def _read(mode: Propagation, point: Tensor, scores: Float[Tensor, " n"]) -> Images:
    """Return the relevance of a tensor: its values times their changed gradient, and what the first layer adds."""
    if mode.extra is None:
        (changed,) = torch.autograd.grad(scores.sum(), point)
        return point.detach() * changed
    assert mode.first is not None
    changed, added = torch.autograd.grad(scores.sum(), [point, mode.extra], retain_graph=True)
    if mode.first is not point:  # between them, values are only placed elsewhere
        (added,) = torch.autograd.grad(mode.first, point, added)
    return point.detach() * changed + added


def _bounds(model: nn.Module, images: Images, pixel_range: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest input of the first layer, for images of the darkest and brightest pixels."""
    flat = torch.stack([torch.full_like(images[0], value) for value in pixel_range])
    mode, _ = propagated("lrp", model, flat, Rules())
    if mode.first is None:
        raise ValueError(f"lrp: no convolution and no linear layer reads the image in {type(model).__name__}")
    ends = mode.first.detach()
    return ends.amin(0, keepdim=True), ends.amax(0, keepdim=True)
