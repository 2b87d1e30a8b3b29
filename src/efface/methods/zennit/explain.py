"""Relevance propagation as a method: block by block, the network as it was afterwards."""

import torch
from torch import nn

from efface.methods.adapters import untouched
from efface.methods.zennit.network import reading, traced
from efface.methods.zennit.rules import Settings, plan
from efface.models.evaluation import evaluating
from efface.models.memory import blocks
from efface.models.scores import target_scores
from efface.types import Images, Target, TargetScore


def attribute(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    composite: str = "EpsilonPlus",
    canonizer: str | None = "auto",
    settings: Settings = None,
    score: TargetScore = "logit",
    max_batch: int = 256,
) -> Images:
    """Relevance of each value of the image, passed back through each layer by a rule of its own: signed.

    It starts at 1 for the class, or at the weights of the classes; with `zero_params: bias` none is lost, so the map
    sums to what it started from, but for the rules' `epsilon`. It is taken where the first convolution or linear layer
    reads the image: however the network normalises, nothing is lost or scaled there. One forward pass an image, a
    backward pass, and in that, for each layer, one to four of its own; and three forward passes of one image.

    composite: zennit's set of rules: EpsilonPlus, EpsilonAlpha2Beta1, EpsilonPlusFlat, EpsilonAlpha2Beta1Flat,
        EpsilonGammaBox, ExcitationBackprop; or a changed gradient: GuidedBackprop, DeconvNet, BetaSmooth.
    canonizer: auto, for any network: each BatchNorm is merged into the layer right before it; or one of zennit's by
        name (SequentialMergeBatchNorm, VGGCanonizer, ResNetCanonizer). With any, features that are added or averaged
        by a function, as at the end of a residual block, follow the composite's rules, too, and a network that it has
        no rules for is refused. none: zennit as it is.
    settings: of the composite, by zennit's names: epsilon, gamma, stabilizer, zero_params, beta_smooth. EpsilonGammaBox
        takes `low` and `high`, what a pixel can be, in [0, 1] (0 and 1 by default).
    score: what starts it, of the target class: logit, log_probability, probability or loss (cross entropy), by its
        gradient at the logits.
    max_batch: images in one pass, at least 1; bounds the memory, changes no map.

    Source: Bach et al. 2015, doi 10.1371/journal.pone.0130140; zennit: Anders et al. 2021 (arXiv:2106.13200).
    Differs: starts at 1, not at the score, so that a negative score does not turn the map round.
    """
    planned = plan(composite, canonizer, settings)
    images, maps = images.detach(), []
    with untouched(model), evaluating(model):
        found = traced(model, images[:1])
        rules = planned.made(model, found, images[:1])
        for block in blocks(len(images), max_batch):
            points = images[block].clone().requires_grad_()
            with rules.holding(model), reading(found.first) as read:
                scores = target_scores(model, points, targets[block], score)
                start = read[0] if rules.relevant and read[0].shape == points.shape else points
                maps.append(torch.autograd.grad(scores.sum(), start)[0])
    return torch.cat(maps)


def check_attribute(
    *, composite: str = "EpsilonPlus", canonizer: str | None = "auto", settings: Settings = None
) -> None:
    """Refuse settings of `attribute` that no network and no image could make right; imports zennit."""
    plan(composite, canonizer, settings)
