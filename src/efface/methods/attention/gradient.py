"""Attention weighted by its gradient: of the last block, or through all blocks.

Both methods take these settings:

score: score of the target class to explain: logit, log_probability, probability or loss (cross entropy). If `targets`
    are weights of the classes, it must be logit.
max_batch: most images in one pass, at least 1. It limits the memory and changes maps by rounding only.
classes_of: function from logits to target classes. If given, it replaces `targets`. It is called once per image, in
    order, with the logits of the same forward pass that produces the map.
"""

from typing import Any

import torch
from torch import nn

from efface.base.types import Images, Target, TargetScore
from efface.methods.attention.passes import LAST, ClassesOf, Map, PerHead, Rows, by_gradient, pooled
from efface.models.attended import Attended
from efface.plug.shared_settings import with_settings_of


def attention_grad_cam(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    score: TargetScore = "logit",
    max_batch: int = 256,
    classes_of: ClassesOf | None = None,
) -> Map:
    """Attention of the last block, its heads weighted by their mean gradient, passed through ReLU: never negative.

    Formula: map = relu(sum over heads h of w_h A_h), A_h the row of the class token over the patches in the last block,
        and w_h the mean of d score / d A_h over these patches.

    Without a class token, both the row and the mean of the gradients are means over the tokens that the head reads. If
    the head pools the tokens by attention (SigLIP), this attention takes the place of the last block. It
    costs one forward pass per image, and a backward pass to the last block. The settings are described in this module's
    docstring.

    Source: Chefer, Gur & Wolf 2021 (arXiv:2012.09838), their baseline that applies Grad-CAM to attention.
    Differs: the sum over heads in place of their mean, and no scaling to [0, 1]; neither changes a rank.
    """
    return by_gradient(_weighted_heads, model, images, targets, score, max_batch, classes_of, of=LAST)


@with_settings_of(attention_grad_cam)
def generic_attention(model: nn.Module, images: Images, targets: Target, **settings: Any) -> Map:
    """Positive part of attention times gradient, mean over heads, accumulated through all blocks: never negative.

    Formula: R = I, then R = R + (mean over heads of relu(A_l * d score / d A_l)) R for each block l; map = row of the
        class token of R.

    Without a class token, the mean over the rows of the tokens that the head reads takes the place of its row. If the
    head pools the tokens by attention (SigLIP), the row is that of relu(A * d score / d A) of this attention, as rule
    10 has it for queries that are no tokens. It costs one forward and one backward pass per image. The settings are
    described in this module's docstring.

    Source: Chefer, Gur & Wolf, ICCV 2021, rules 5, 6 and 10 (arXiv:2103.15679).
    Differs: nothing.
    """
    return by_gradient(_accumulated, model, images, targets, **settings)


def _weighted_heads(found: Attended, attention: PerHead, gradients: PerHead) -> Rows:
    read = list(found.read)
    weights = gradients[-1][:, :, read, found.grid.prefix :].mean((2, 3))
    return torch.einsum("nh,nhrt->nrt", weights, attention[-1][:, :, read]).mean(1, keepdim=True).relu()


def _accumulated(found: Attended, attention: PerHead, gradients: PerHead) -> Rows:
    relevance = [(weights * slopes).relu_().mean(1) for weights, slopes in zip(attention, gradients, strict=True)]
    return pooled(found, relevance)
