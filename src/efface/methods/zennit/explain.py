"""Relevance propagation as an attribution method: runs block by block and restores the network."""

import torch
from torch import nn

from efface.base.types import Images, Target, TargetScore
from efface.methods.adapters import untouched
from efface.methods.zennit.network import collecting_input, traced
from efface.methods.zennit.rules import Settings, rule_set
from efface.models.evaluation import evaluating
from efface.models.memory import blocks
from efface.models.scores import target_scores


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
    """Relevance of each value of the image, passed back through each layer by that layer's rule: signed.

    The relevance of the target class starts at 1; with weights of the classes in `targets`, it starts at the weights.
    With `zero_params: bias` no relevance is lost: the map sums to the starting value, up to the rules' `epsilon`. The
    map is the relevance at the input of the first convolution or linear layer. So the network's normalisation does not
    lose or scale relevance.

    It costs one forward and one backward pass per image. The backward pass runs each layer one to four times more.
    Three forward passes of one image are added.

    composite: zennit's set of rules: EpsilonPlus, EpsilonAlpha2Beta1, EpsilonPlusFlat, EpsilonAlpha2Beta1Flat,
        EpsilonGammaBox, ExcitationBackprop; or a changed gradient: GuidedBackprop, DeconvNet, BetaSmooth.
    canonizer: auto, for any network: merge each BatchNorm into the layer right before it. Or the name of a canonizer
        of zennit (SequentialMergeBatchNorm, VGGCanonizer, ResNetCanonizer). With both, the composite's rules also
        apply where a function adds or averages features, as at the end of a residual block. A network that the
        composite has no rules for then raises a ValueError. null: zennit without these additions.
    settings: settings of the composite, by zennit's names: epsilon, gamma, stabilizer, zero_params, beta_smooth.
        EpsilonGammaBox takes `low` and `high`, the range of a pixel, in [0, 1] (0 and 1 by default).
    score: score of the target class whose gradient at the logits starts the relevance: logit, log_probability,
        probability or loss (cross entropy).
    max_batch: most images in one pass, at least 1. It limits the memory and changes no map.

    Source: Bach et al. 2015, doi 10.1371/journal.pone.0130140; zennit: Anders et al. 2021 (arXiv:2106.13200).
    Differs: the relevance starts at 1 and not at the score, so a negative score does not change the sign of the map.
    """
    chosen = rule_set(composite, canonizer, settings)
    images, maps = images.detach(), []
    with untouched(model), evaluating(model):
        trace = traced(model, images[:1])
        rules = chosen.made(model, trace, images[:1])
        for block in blocks(len(images), max_batch):
            points = images[block].clone().requires_grad_()
            with rules.holding(model), collecting_input(trace.first) as read:
                scores = target_scores(model, points, targets[block], score)
                start = read[0] if rules.relevant and read[0].shape == points.shape else points
                maps.append(torch.autograd.grad(scores.sum(), start)[0])
    return torch.cat(maps)


def check_attribute(
    *, composite: str = "EpsilonPlus", canonizer: str | None = "auto", settings: Settings = None
) -> None:
    """Raise ValueError for settings of `attribute` that are wrong for every network and image; imports zennit."""
    rule_set(composite, canonizer, settings)
