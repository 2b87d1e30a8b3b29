"""Attention rollout: which patches the attention mixes into the tokens that the head reads."""

import torch
from torch import nn

from efface.base.types import Images, Maps, Target
from efface.methods.attention.passes import ClassesOf, Map, first_block, laid_out, mean_of_heads, pooled
from efface.models.attended import attended
from efface.models.attention import visible_attention
from efface.models.evaluation import evaluating
from efface.models.memory import at_once, blocks
from efface.models.scores import logits_of
from efface.plug.facts import states


def class_blind(_model: nn.Module, _images: Images, _targets: Target, _maps: Maps, **_: object) -> list[str]:
    """Return what is to be known of every rollout."""
    said = (
        "attention rollout is class-blind: it shows what the network attends to, and its maps are the same for every "
        "class; do not read them as evidence for a class"
    )
    return [said]


@states(doubts=class_blind)
def attention_rollout(
    model: nn.Module,
    images: Images,
    targets: Target,  # noqa: ARG001  no class is explained
    *,
    start: int = 0,
    max_batch: int = 256,
    classes_of: ClassesOf | None = None,
) -> Map:
    """Product of the mean attention of all blocks, each mixed with the identity: class-blind, never negative.

    Formula: map = row of the class token of B_L ... B_1, with B_l = (I + mean over heads of A_l) / 2.

    The class that is explained changes nothing. The map says which patches the tokens that the head reads could come
    from, not which of them speak for a class. It costs one forward pass per image.

    Without a class token, the mean over the rows of the tokens that the head reads takes the place of its row. If the
    head pools the tokens by attention (SigLIP), the row is that of this attention, times B_L ... B_1.

    start: number of the first block that is used, from 0.
    max_batch: most images in one pass, at least 1. It limits the memory and changes maps by rounding only.
    classes_of: function from logits to target classes, which is called once per image with the logits of this pass.

    Source: Abnar & Zuidema 2020, section 3 (arXiv:2005.00928); `start` as in Hesse, Schaub-Meyer & Roth 2024 (IDSDS),
        who leave out block 0.
    Differs: nothing.
    """
    found = attended(model, images, pooled=True)
    start = first_block(start, found)
    maps = []
    with evaluating(model), torch.no_grad(), visible_attention(model, see=mean_of_heads) as attention:
        for block in blocks(len(images), at_once(images, max_batch)):
            attention.clear()
            logits = logits_of(model, images[block].detach())
            if classes_of is not None:
                classes_of(logits)
            maps.append(laid_out(found, pooled(found, attention[start:], 0.5), images[block]))
    return torch.cat(maps)
