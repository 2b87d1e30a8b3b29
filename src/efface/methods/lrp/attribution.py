"""Transformer attribution: the relevance of attention, weighted by its gradient, accumulated through the blocks."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.types import Images, Target, TargetScore
from efface.methods.attention.passes import first_block, laid_out, through
from efface.methods.feature_maps import widened
from efface.methods.lrp.explain import checked, propagated
from efface.methods.lrp.mode import Propagation
from efface.methods.lrp.rules import PLAIN, TRANSFORMER
from efface.models.attended import attended
from efface.models.evaluation import evaluating
from efface.models.memory import blocks
from efface.models.scores import scores_of

Attention = Tensor
"""Attention weights n h t t of a block, or numbers of their shape; blocks may differ in h and t."""
Map = Float[Tensor, "n h w"]


class AttentionRelevance(NamedTuple):
    """Of each block with attention, in order: the relevance of its attention weights, and the gradient of the score."""

    relevance: list[Attention]
    gradients: list[Attention]


def transformer_attribution(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    start: int = 0,
    score: TargetScore = "logit",
    max_batch: int = 256,
) -> Map:
    """Relevance of attention times its gradient, positive part, accumulated through all blocks: never negative.

    Formula: B_l = I + mean over heads of relu(R_l * d score / d A_l), A_l the attention of block l and R_l its
        relevance; map = row of the class token of B_L ... B_start over the patches, enlarged bilinearly.

    Without a class token, the mean over the rows of the tokens that the head reads takes the place of its row. It costs
    two forward passes and two backward passes per image. In one of each, every linear layer runs two or three times.

    start: number of the first block that is used, from 0. Some benchmarks leave block 0 out.
    score: score of the target class to explain: logit, log_probability, probability or loss (cross entropy).
    max_batch: most images in one pass, at least 1. It limits the memory and changes no map.

    Source: Chefer, Gur & Wolf, CVPR 2021, section 3 (arXiv:2012.09838).
    Differs: the numbers that avoid a division by 0 are smaller.
    """
    found, maps = attended(model, images), []
    first_block(start, found)
    for block in blocks(len(images), max_batch):
        relevance, gradients = attention_relevance(model, images[block], targets[block], score=score)
        if len(relevance) != found.depth:
            raise ValueError(
                f"transformer_attribution: {len(relevance)} of the {found.depth} blocks with attention of "
                f"{type(model).__name__} multiply their weights with values in a way that has a rule; expected all of "
                "them: choose another method"
            )
        matrices = [(of_block * slope).relu().mean(1) for of_block, slope in zip(relevance, gradients, strict=True)]
        maps.append(laid_out(found, through(found.rows(matrices[0]), matrices[start:]), images[block]))
    return torch.cat(maps)


def check_transformer_attribution(*, start: int = 0) -> None:
    """Raise ValueError for settings of `transformer_attribution` that are wrong for every network and image."""
    if start < 0:
        raise ValueError(f"start is {start}; expected the number of a block, from 0")


def attention_relevance(
    model: nn.Module, images: Images, targets: Target, *, score: TargetScore = "logit"
) -> AttentionRelevance:
    """Return the relevance of each attention matrix by the rules of transformer attribution, and its gradient.

    Linear layers and convolutions pass on the shares of positive contributions, without the bias. Sums split by the
    absolute values of their summands' sums over an image. Each factor of a product takes half. LayerNorm, softmax and
    activations pass all relevance on. The relevance starts at the gradient of the score: 1 for the class of a logit.

    It costs two forward passes and two backward passes per image. The network is as it was afterwards.

    ValueError: the network computes no attention, attention within windows, or an operation without a rule.
    """
    with evaluating(model):
        mode, logits = propagated("transformer_attribution", model, images, TRANSFORMER, keeps_attention=True)
        checked(mode, logits, model, images[:1])
        points = logits.detach().requires_grad_()
        (slopes,) = torch.autograd.grad(scores_of(points, targets, score).sum(), points)
        per_logit = (slopes / points.detach()).nan_to_num(0.0, 0.0, 0.0)
        relevance = [weights * changed for weights, changed in _at_attention(model, mode, logits, per_logit)]
        mode, logits = propagated("transformer_attribution", model, images, PLAIN, keeps_attention=True)
        gradients = [slope for _, slope in _at_attention(model, mode, logits, slopes)]
    return AttentionRelevance(relevance, gradients)


def _at_attention(
    model: nn.Module, mode: Propagation, logits: Float[Tensor, "n k"], slopes: Float[Tensor, "n k"]
) -> list[tuple[Attention, Attention]]:
    """Return the attention weights of each block, and their gradient for these gradients of the logits."""
    if not mode.attentions:
        raise ValueError(
            f"{mode.title}: {type(model).__name__} computes no attention, so there is nothing to accumulate; expected "
            "a transformer: choose another method"
        )
    kept = [weights for weights, _ in mode.attentions]
    changed = torch.autograd.grad(logits, kept, slopes, allow_unused=True)
    found = []
    for (weights, transposed), own in zip(mode.attentions, changed, strict=True):
        pair = torch.stack([weights, torch.zeros_like(weights) if own is None else own])
        of_weights, of_own = (_by_head(each, len(logits)) for each in widened(pair.mT if transposed else pair))
        if of_weights.ndim != 4 or len(of_weights) != len(logits) or of_weights.shape[2] != of_weights.shape[3]:
            raise ValueError(
                f"{mode.title}: the attention of {type(model).__name__} has shape {tuple(of_weights.shape)} for "
                f"{len(logits)} images; expected images x heads x tokens x tokens, not attention within windows or "
                "between two sets of tokens: choose another method for this network"
            )
        found.append((of_weights, of_own))
    return found


def _by_head(weights: Tensor, n: int) -> Tensor:
    """Return attention n h t t, also where a network keeps images and heads in one axis."""
    return weights.unflatten(0, (n, -1)) if weights.ndim == 3 and len(weights) % n == 0 else weights
