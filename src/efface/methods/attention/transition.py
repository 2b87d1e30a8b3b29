"""Transition attention maps and Bi-attn: attention from the head back to the patches, times an integrated gradient.

Both methods take these settings:

steps: points on the line from the baseline to the image, both included, at least 2. Each costs one forward and one
    backward pass.
start: number of the first block that is used, from 0.
baseline: value of every pixel of the flat image at which the line begins, in [0, 1].
score: score of the target class to explain: logit, log_probability, probability or loss (cross entropy). If `targets`
    are weights of the classes, it must be logit.
max_batch: most points in one pass, at least 1. It limits the memory and changes maps by rounding only.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from efface.base.types import Images, Target, TargetScore
from efface.methods.attention.passes import (
    EVERY,
    LAST,
    Map,
    PerHead,
    Rows,
    first_block,
    gradients_of,
    laid_out,
    mean_of_heads,
    through,
)
from efface.methods.feature_maps import widened
from efface.models.attended import Attended, attended
from efface.models.attention import visible_attention
from efface.models.evaluation import evaluating
from efface.models.memory import at_once, blocks
from efface.models.scores import target_scores
from efface.plug.shared_settings import with_settings_of

States = Callable[[Attended, PerHead, PerHead], Rows]
"""(how the network attends, attention from block `start` on, its gradients) -> row of each token that is read."""


def _integrated(
    states: States,
    model: nn.Module,
    images: Images,
    targets: Target,
    of: slice,
    *,
    steps: int = 20,
    start: int = 0,
    baseline: float = 0.0,
    score: TargetScore = "logit",
    max_batch: int = 256,
) -> Map:
    """Return the maps of states times the gradient of the last attention, integrated along the line.

    of: blocks whose gradients at the image the states need.
    """
    if steps < 2:
        raise ValueError(f"steps is {steps}; expected at least 2: the baseline and the image are points of the line")
    found, maps = attended(model, images), []
    start = first_block(start, found)
    alphas = torch.linspace(0, 1, steps, dtype=images.dtype, device=images.device)[:-1]
    together = at_once(images, max_batch)
    with evaluating(model), visible_attention(model, gradients=True) as attention:

        def slopes(points: Images, aims: Target, of: slice) -> list[Tensor]:
            attention.clear()
            scores = target_scores(model, points, aims, score)
            return gradients_of(model, scores, attention[start:][of], points)

        for block in blocks(len(images), together):
            whole, aims = images[block].detach(), targets[block]
            gradients = slopes(whole, aims, of)
            rows = states(found, attention[start:], gradients)
            total = gradients[-1][:, :, list(found.read)]
            for some in alphas.split(max(1, together // len(whole))):
                points = (baseline + some[:, None, None, None, None] * (whole - baseline)).flatten(0, 1)
                again = aims.repeat(len(some), *(1,) * (aims.ndim - 1))
                (last,) = slopes(points, again, LAST)
                total = total + last[:, :, list(found.read)].unflatten(0, (len(some), -1)).sum(0)
            weights = (total / steps).relu().mean(1)
            maps.append(laid_out(found, rows * weights, whole))
    return torch.cat(maps)


@with_settings_of(_integrated)
def tam(model: nn.Module, images: Images, targets: Target, **settings: Any) -> Map:
    """Attention followed back from the last block's row of the class token, times its integrated gradient.

    Formula: s = E A_L of the class token, then s = s + s E A_l for l = L-1 ... 1; map = s * W, with E the mean over
        heads and W = E relu(mean over alpha of d score / d A_L at baseline + alpha (image - baseline)) of the class
        token.

    Without a class token, the map is the mean of s * W over the tokens that the head reads. Maps are never negative.
    The settings are described in this module's docstring.

    Source: Yuan et al. 2021, Explaining information flow inside vision transformers using Markov chain; 20 steps.
    Differs: the line begins at a flat image in [0, 1]; theirs begins at the mean colour, 0 after the normalisation. As
        in their code, the last block is not used a second time; the code of IDSDS uses it twice.
    """
    return _integrated(_transitions, model, images, targets, LAST, **settings)


@with_settings_of(tam)
def bi_attn(model: nn.Module, images: Images, targets: Target, *, start: int = 3, **settings: Any) -> Map:
    """Attention of all blocks, heads weighted by how attention and gradient agree, times an integrated gradient.

    Formula: R = I, then R = R + (sum over heads h of I_h A_h) R for each block from `start` on, with I_h the mean of
        |A_h^T (d score / d A_h)|, normalised over the heads; map = R * W of the class token, with W as in `tam`.

    Without a class token, the map is the mean of R * W over the tokens that the head reads. Maps are never negative.
    The settings are described in this module's docstring.

    start: by default 3, the fourth block.

    Source: Chen et al., TMLR 2023, Beyond intuition: rethinking token attributions inside transformers; head-wise
        perception.
    Differs: as `tam`, in where the line begins.
    """
    return _integrated(_weighted_blocks, model, images, targets, EVERY, start=start, **settings)


def _transitions(found: Attended, attention: PerHead, _: PerHead) -> Rows:
    rows = mean_of_heads(attention[-1][:, :, list(found.read)])
    return through(rows, [mean_of_heads(each) for each in attention[:-1]])


def _weighted_blocks(found: Attended, attention: PerHead, gradients: PerHead) -> Rows:
    mixed = []
    for weights, slopes in zip(map(widened, attention), gradients, strict=True):
        heads = (weights.mT @ slopes).abs().mean((2, 3))
        share = heads / heads.sum(1, keepdim=True).clamp(min=torch.finfo(heads.dtype).tiny)
        mixed.append(torch.einsum("nh,nhqt->nqt", share, weights))
    return through(found.rows(mixed[0]), mixed)
