"""Class activation maps: a layer's channels, weighted by their importance for the target class.

All methods take these settings:

layer: name of a module, as the network names it; by default that of the last features. Its output is a feature map
    n c h w, or is laid out as one: features with channels last, or tokens without the prefix tokens. See
    `efface.models.layers.feature_layer`. If a module runs several times in a pass, the last run counts. To explain a
    convolution before its BatchNorm and ReLU, name that convolution.
score: score of the target class to explain: logit, log_probability, probability or loss (cross entropy).
relu: set negative values, evidence against the class, to 0. Without it, the map is signed.
max_batch: most images in one pass, at least 1. It limits the memory and changes no map.
classes_of: function from logits to target classes. If given, it replaces `targets`. It is called once per image, in
    order, with the logits of the same forward pass that produces the map. This saves a separate forward pass.

The maps are enlarged to the image size bilinearly, with pixel centres as the grid (align_corners=False).
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.shown import shown
from efface.base.types import Images, Target, Targets, TargetScore
from efface.methods.backprop import guided_backprop
from efface.methods.feature_maps import Features, cut_at, features_of, layer_said, looking_at, widened
from efface.models.memory import at_least_one, at_once, blocks
from efface.models.scores import differentiable, logits_of, scores_of, target_scores
from efface.plug.facts import states
from efface.plug.shared_settings import with_settings_of

ClassesOf = Callable[[Float[Tensor, "n k"]], Targets]
Map = Float[Tensor, "n h w"]
Small = Float[Tensor, "n y x"]


@states(looks_at=layer_said)
def grad_cam(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    layer: str | None = None,
    score: TargetScore = "logit",
    relu: bool = True,
    max_batch: int = 256,
    classes_of: ClassesOf | None = None,
) -> Map:
    """Channels of a layer, weighted by their mean gradient, summed, passed through ReLU and enlarged: never negative.

    Formula: map = enlarged(relu(sum over k of w_k A_k)), with w_k the mean of d score / d A_k over all places.

    It costs one forward pass per image, and a backward pass from the logit to the layer only. The settings are
    described in this module's docstring.

    Source: Selvaraju et al. 2017, section 3 (arXiv:1610.02391).
    Differs: nothing.
    """
    return _by_gradient(_mean_gradient, model, images, targets, layer, score, max_batch, classes_of, relu=relu)


@states(looks_at=layer_said)
@with_settings_of(grad_cam)
def grad_cam_plus_plus(model: nn.Module, images: Images, targets: Target, **settings: Any) -> Map:
    """Grad-CAM with channel weights that sum the positive gradients, each weighted by its share in the class score.

    Formula: w_k = sum over places of relu(g) g^2 / (2 g^2 + g^3 sum(A_k)), with g = d logit / d A_k.

    Cost and settings are those of `grad_cam`. The differentiated score is exp(logit). Its second and third derivatives
    with respect to the features are the logit's gradient squared and cubed, times the score. This holds where the
    logit is piecewise linear in the features; the paper makes the same assumption.

    layer: choose a layer whose features are never negative, such as the output of a ReLU. With other layers, the
        denominator of a share can come near zero.

    Source: Chattopadhay et al. 2018, section 3 (arXiv:1710.11063).
    Differs: the factor exp(logit) is left out. It is one number per image, changes no rank, and overflows.
    """
    return _by_gradient(_shared_gradient, model, images, targets, **settings)


@states(looks_at=layer_said)
@with_settings_of(grad_cam)
def hires_cam(model: nn.Module, images: Images, targets: Target, **settings: Any) -> Map:
    """Features times their own gradient at each place, summed over the layer's channels.

    Formula: map = enlarged(relu(sum over k of A_k * d score / d A_k)).

    Cost and settings are those of `grad_cam`. Consider the map before ReLU and enlarging. If a single linear layer
    follows the features, this map sums to the logit minus its bias. If global average pooling follows the features, the
    map equals Grad-CAM's.

    Source: Draelos & Carin 2020, section 3 (arXiv:2011.08891).
    Differs: a ReLU is applied at the end unless `relu` is off, as in Grad-CAM.
    """
    return _by_gradient(_gradient, model, images, targets, **settings)


@states(looks_at=layer_said)
@with_settings_of(grad_cam)
def layer_cam(model: nn.Module, images: Images, targets: Target, **settings: Any) -> Map:
    """Features times their own positive gradient at each place, summed over the channels: sharp also in early layers.

    Formula: map = enlarged(relu(sum over k of A_k * relu(d score / d A_k))).

    Cost and settings are those of `grad_cam`. Name an early `layer` for a fine map.

    Source: Jiang et al. 2021, section 3, IEEE Transactions on Image Processing 30.
    Differs: it uses one layer. The paper's tanh, which scales early layers before several are merged, is left out; in a
        single layer it changes no rank.
    """
    return _by_gradient(_positive_gradient, model, images, targets, **settings)


@states(looks_at=layer_said)
@with_settings_of(grad_cam, but=("classes_of",))
def guided_grad_cam(model: nn.Module, images: Images, targets: Target, **settings: Any) -> Images:
    """Guided backpropagation times Grad-CAM at image size, signed: two forward and two backward passes per image.

    The settings are described in this module's docstring; `relu` applies to Grad-CAM.

    Source: Selvaraju et al. 2017, section 3.1 (arXiv:1610.02391).
    Differs: sign and channels are kept.
    """
    coarse = grad_cam(model, images, targets, **settings)
    fine = guided_backprop(model, images, targets, score=settings["score"], max_batch=settings["max_batch"])
    return fine * coarse[:, None]


@states(looks_at=layer_said)
@with_settings_of(grad_cam, but=("classes_of",))
def score_cam(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    weights: Literal["softmax", "score"] = "softmax",
    channels: int | None = None,
    **settings: Any,
) -> Map:
    """Channels of a layer, weighted by the target score of the image after masking with each channel; no gradient.

    Formula: map = enlarged(relu(sum over k of w_k A_k)), w = softmax over k of score(x * M_k), M_k the mask of A_k.

    A channel's mask is the channel itself, enlarged and scaled to [0, 1] for each image. The mask multiplies the image,
    so hidden pixels are black. A channel without contrast is left out. It costs one forward pass per image, and one
    for each channel of the layer; a ResNet-50 has 2048 channels. This module's docstring describes the other settings.

    weights: `softmax` of the scores over the channels, or the `score` itself.
    channels: number of channels to use for each image, at least 1; all by default. The channels with the largest
        variance over their places, before enlarging, are used. Then only so many masked images need a forward pass.
    max_batch: most masked images in one pass.

    Source: Wang et al. 2020, algorithm 1 (arXiv:1910.01279).
    Differs: algorithm 1 subtracts the black image's score from all scores, which does not change the softmax. The
        paper's released code corresponds to score="probability", weights="score". It masks normalised images, so
        hidden pixels have the mean colour. The choice of `channels` is that of the later Faster Score-CAM.
    """
    if channels is not None:
        at_least_one("channels", channels)
    images, score, max_batch = images.detach(), settings["score"], settings["max_batch"]
    maps = []
    with looking_at(model, images, settings["layer"]) as (network, module, name), torch.no_grad():
        for block in blocks(len(images), max_batch):
            features = features_of(network, images[block], module, name)
            if channels is not None and channels < features.shape[1]:
                most = features.flatten(2).var(2, correction=0).topk(channels).indices
                features = features.take_along_dim(most[:, :, None, None], 1)
            scores = _masked_scores(network, images[block], targets[block], features, score, max_batch)
            flat = features.amax((2, 3)) == features.amin((2, 3))
            maps.append(torch.einsum("nk,nkyx->nyx", channel_weights(scores, flat, weights), features))
    return _enlarged(torch.cat(maps), images, relu=settings["relu"])


def _by_gradient(
    weigh: Callable[[Features, Features], Tensor],
    model: nn.Module,
    images: Images,
    targets: Target,
    layer: str | None,
    score: TargetScore,
    max_batch: int,
    classes_of: ClassesOf | None,
    *,
    relu: bool,
) -> Map:
    """Return the sum over channels of the features times the weights that `weigh` computes from features, gradients."""
    maps = []
    with looking_at(model, images, layer) as (network, module, name), cut_at(module, name) as leaves:
        for block in blocks(len(images), at_once(images, max_batch)):
            leaves.clear()
            logits = logits_of(network, images[block].detach())
            scores = scores_of(logits, targets[block] if classes_of is None else classes_of(logits.detach()), score)
            gradients = None
            if scores.requires_grad:
                (gradients,) = torch.autograd.grad(scores.sum(), leaves[-1], allow_unused=True)
            if gradients is None:  # the layer did not run, or the logits do not depend on its last run
                differentiable(network, images[block].detach().clone().requires_grad_())
                raise ValueError(f"layer {name!r} has no part in the logits; expected one that the logits depend on")
            features = widened(leaves[-1])
            maps.append((weigh(features, widened(gradients)) * features).sum(1))
    return _enlarged(torch.cat(maps), images, relu=relu)


def _mean_gradient(_: Features, gradients: Features) -> Tensor:
    return gradients.mean((2, 3), keepdim=True)


def _gradient(_: Features, gradients: Features) -> Tensor:
    return gradients


def _positive_gradient(_: Features, gradients: Features) -> Tensor:
    return gradients.relu()


def _shared_gradient(features: Features, gradients: Features) -> Tensor:
    """Return relu(g) times its share g^2 / (2 g^2 + g^3 sum(features)) for each gradient g, summed over the places."""
    shares = 1 / (2 + gradients * features.sum((2, 3), keepdim=True))  # g^2 cancels; where g = 0, relu(g) is 0 too
    shares = shares.masked_fill(shares.isinf(), 0.0)
    return (shares * gradients.relu()).sum((2, 3), keepdim=True)


def _masked_scores(
    model: nn.Module, images: Images, targets: Target, features: Features, score: TargetScore, max_batch: int
) -> Float[Tensor, "n channels"]:
    """Return target scores of the images masked by each channel, in passes of at most `max_batch` masked images."""
    together = max(1, max_batch // len(images))
    scores = []
    for part in features.split(together, dim=1):
        large = F.interpolate(part, size=images.shape[2:], mode="bilinear", align_corners=False)
        low, high = large.amin((2, 3), keepdim=True), large.amax((2, 3), keepdim=True)
        masks = (large - low) / (high - low).clamp_min(torch.finfo(large.dtype).tiny)
        masked = (images[:, None] * masks[:, :, None]).flatten(0, 1)
        aims = targets.repeat_interleave(part.shape[1], 0)
        scores.append(target_scores(model, masked, aims, score).unflatten(0, part.shape[:2]))
    return torch.cat(scores, 1)


def channel_weights(scores: Float[Tensor, "n channels"], flat: Tensor, weights: str) -> Float[Tensor, "n channels"]:
    """Return the weights of `score_cam` for the channels of each image.

    scores: target scores of the images masked by each channel.
    flat: n channels, True where a channel has the same value at all places. Its weight is 0.
    weights: see `score_cam`.

    ValueError: `weights` is another word.
    """
    match weights:
        case "softmax":
            return scores.masked_fill(flat, -torch.inf).softmax(1).nan_to_num()  # NaN where all channels are flat
        case "score":
            return scores.masked_fill(flat, 0.0)
    raise ValueError(f"weights is {shown(weights)}; expected softmax or score")


def _enlarged(small: Small, images: Images, *, relu: bool) -> Map:
    if relu:
        small = small.relu()
    return F.interpolate(small[:, None], size=images.shape[2:], mode="bilinear", align_corners=False).squeeze(1)
