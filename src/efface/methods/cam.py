"""Class activation maps: a layer's channels weighted by what they mean to the target class.

All take these settings:

layer: name of a module with an n c h w output, as the network names it; of a module that runs several times in a pass,
    the last run counts. By default the last convolutional feature map. The variant on a convolution before its
    BatchNorm and ReLU is had by naming that convolution.
of: what is explained, of the target class: logit, log_probability, probability or loss (cross entropy).
relu: whether what speaks against the class becomes 0; without, the map is signed.
max_batch: images in one pass, at least 1; bounds the memory, changes no map.
classes_of: logits of some images to the classes that their maps explain, in place of `targets`: called once for each
    image, in their order, with what the pass that makes the map answers; it saves the pass that would ask before.

The maps are enlarged to the images bilinearly, with pixel centres as the grid (align_corners=False).
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from efface.methods.backprop import guided_backprop
from efface.methods.feature_maps import Features, cut_at, features_of, looking_at
from efface.models.memory import at_least_one, at_once, blocks
from efface.models.scores import logits_of, scores_of, target_scores
from efface.types import Images, Target, Targets, TargetScore

ClassesOf = Callable[[Float[Tensor, "n k"]], Targets]
Map = Float[Tensor, "n h w"]
Small = Float[Tensor, "n y x"]


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
    """Channels of a layer, weighted by their mean gradient, summed, ReLU'd and brought to image size: never negative.

    One forward pass an image, and a backward pass from the logit down to the layer only. Settings: this module's.

    Source: Selvaraju et al. 2017, section 3 (arXiv:1610.02391).
    Differs: nothing.
    """
    return _by_gradient(_mean_gradient, model, images, targets, layer, score, max_batch, classes_of, relu=relu)


def grad_cam_plus_plus(
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
    """Grad-CAM whose channel weights sum the positive gradients, each by its share in the class score.

    Cost and settings are those of `grad_cam`. The score is exp(logit), so that its second and third derivatives by the
    features are the logit's gradient squared and cubed, times the score. That holds where the logit is piecewise linear
    in the features; the paper, too, takes it for granted.

    layer: one whose features are never negative, as behind a ReLU; others can bring a share's denominator near zero.

    Source: Chattopadhay et al. 2018, section 3 (arXiv:1710.11063).
    Differs: the factor exp(logit) is left out: one number an image, which changes no rank and overflows.
    """
    return _by_gradient(_shared_gradient, model, images, targets, layer, score, max_batch, classes_of, relu=relu)


def hires_cam(
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
    """Features times their own gradient, place by place, summed over the layer's channels.

    Cost and settings are those of `grad_cam`. Where one linear layer stands between the features and the logits, the
    map before ReLU and enlarging sums to the logit less its bias; behind global average pooling it is Grad-CAM's.

    Source: Draelos & Carin 2020, section 3 (arXiv:2011.08891).
    Differs: a ReLU ends it unless `relu` is off, as in Grad-CAM.
    """
    return _by_gradient(_gradient, model, images, targets, layer, score, max_batch, classes_of, relu=relu)


def layer_cam(
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
    """Features times their own positive gradient, place by place, summed over the channels: sharp in early layers, too.

    Cost and settings are those of `grad_cam`; name an early `layer` for a fine map.

    Source: Jiang et al. 2021, section 3, IEEE Transactions on Image Processing 30.
    Differs: one layer; the paper's tanh, which evens early layers out before merging several, changes no rank in one.
    """
    return _by_gradient(_positive_gradient, model, images, targets, layer, score, max_batch, classes_of, relu=relu)


def guided_grad_cam(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    layer: str | None = None,
    score: TargetScore = "logit",
    relu: bool = True,
    max_batch: int = 256,
) -> Images:
    """Guided backpropagation times Grad-CAM at image size, signed: two forward and two backward passes an image.

    Settings: this module's; `relu` is of the Grad-CAM.

    Source: Selvaraju et al. 2017, section 3.1 (arXiv:1610.02391).
    Differs: sign and channels are kept.
    """
    coarse = grad_cam(model, images, targets, layer=layer, score=score, relu=relu, max_batch=max_batch)
    return guided_backprop(model, images, targets, score=score, max_batch=max_batch) * coarse[:, None]


def score_cam(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    layer: str | None = None,
    score: TargetScore = "logit",
    weights: Literal["softmax", "score"] = "softmax",
    channels: int | None = None,
    relu: bool = True,
    max_batch: int = 256,
) -> Map:
    """Channels of a layer, weighted by the target score of the image that each of them masks; no gradient.

    A channel's mask is the channel itself, enlarged and stretched to 0..1 on each image; it multiplies the image, so
    that black stands behind. A channel without contrast is left out. One forward pass an image, and one for each of the
    layer's channels: 2048 of them in a ResNet-50. Settings not named here: this module's.

    weights: `softmax` of the scores over the channels, or the `score` itself.
    channels: how many channels of an image count, at least 1: those that vary most over their places, before they are
        enlarged; all by default. So many forward passes an image are enough then.
    max_batch: masked images in one pass.

    Source: Wang et al. 2020, algorithm 1 (arXiv:1910.01279).
    Differs: the black image's score, which algorithm 1 takes off all scores alike, is gone in the softmax anyway. The
        paper's released code is score="probability", weights="score", and masks normalised images: there the mean
        colour stands behind. The choice of `channels` is that of the later Faster Score-CAM.
    """
    if channels is not None:
        at_least_one("channels", channels)
    images = images.detach()
    maps = []
    with looking_at(model, images, layer) as (network, module, name), torch.no_grad():
        for block in blocks(len(images), max_batch):
            features = features_of(network, images[block], module, name)
            if channels is not None and channels < features.shape[1]:
                most = features.flatten(2).var(2, correction=0).topk(channels).indices
                features = features.take_along_dim(most[:, :, None, None], 1)
            scores = _masked_scores(network, images[block], targets[block], features, score, max_batch)
            flat = features.amax((2, 3)) == features.amin((2, 3))
            maps.append(torch.einsum("nk,nkyx->nyx", _weighed(scores, flat, weights), features))
    return _enlarged(torch.cat(maps), images, relu=relu)


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
    """The sum over channels of the features, each weighed by what `weigh` makes of features and gradients."""
    maps = []
    with looking_at(model, images, layer) as (network, module, name), cut_at(module, name) as leaves:
        for block in blocks(len(images), at_once(images, max_batch)):
            leaves.clear()
            logits = logits_of(network, images[block].detach())
            scores = scores_of(logits, targets[block] if classes_of is None else classes_of(logits.detach()), score)
            gradients = None
            if scores.requires_grad:
                (gradients,) = torch.autograd.grad(scores.sum(), leaves[-1], allow_unused=True)
            if gradients is None:  # the layer did not run, or nothing of its last run reached the logits
                raise ValueError(f"layer {name!r} has no part in the logits; expected a layer on the way to them")
            features = leaves[-1].detach()
            maps.append((weigh(features, gradients) * features).sum(1))
    return _enlarged(torch.cat(maps), images, relu=relu)


def _mean_gradient(_: Features, gradients: Features) -> Tensor:
    return gradients.mean((2, 3), keepdim=True)


def _gradient(_: Features, gradients: Features) -> Tensor:
    return gradients


def _positive_gradient(_: Features, gradients: Features) -> Tensor:
    return gradients.relu()


def _shared_gradient(features: Features, gradients: Features) -> Tensor:
    """g^2 / (2 g^2 + g^3 sum(features)) of each positive gradient g, summed over the places."""
    shares = 1 / (2 + gradients * features.sum((2, 3), keepdim=True))  # g^2 cancels; where g = 0, relu is 0, too
    shares = shares.masked_fill(shares.isinf(), 0.0)
    return (shares * gradients.relu()).sum((2, 3), keepdim=True)


def _masked_scores(
    model: nn.Module, images: Images, targets: Target, features: Features, score: TargetScore, max_batch: int
) -> Float[Tensor, "n channels"]:
    """Target scores of the images behind each of their channels, in passes of at most `max_batch` masked images."""
    together = max(1, max_batch // len(images))
    scores = []
    for part in features.split(together, dim=1):
        large = F.interpolate(part, size=images.shape[2:], mode="bilinear", align_corners=False)
        low, high = large.amin((2, 3), keepdim=True), large.amax((2, 3), keepdim=True)
        masks = (large - low) / (high - low).clamp_min(torch.finfo(large.dtype).tiny)
        masked = (images[:, None] * masks[:, :, None]).flatten(0, 1)
        each = targets.repeat_interleave(part.shape[1], 0)
        scores.append(target_scores(model, masked, each, score).unflatten(0, part.shape[:2]))
    return torch.cat(scores, 1)


def _weighed(scores: Float[Tensor, "n channels"], flat: Tensor, weights: str) -> Float[Tensor, "n channels"]:
    match weights:
        case "softmax":
            return scores.masked_fill(flat, -torch.inf).softmax(1).nan_to_num()  # not a number where all are flat
        case "score":
            return scores.masked_fill(flat, 0.0)
    raise ValueError(f"weights is {weights!r}; expected softmax or score")


def _enlarged(small: Small, images: Images, *, relu: bool) -> Map:
    if relu:
        small = small.relu()
    return F.interpolate(small[:, None], size=images.shape[2:], mode="bilinear", align_corners=False).squeeze(1)
