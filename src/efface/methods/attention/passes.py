"""What the methods share that follow attention: passes with their gradients, products of blocks, and the map's layout.

A map is the row of the class token, over the tokens of the patches, laid out as the patches lie and enlarged
bilinearly, with pixel centres as the grid (align_corners=False). The row of another token takes its place where the
head reads another token, and the mean of their rows where it reads several (`efface.models.attended`).
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.types import Images, Target, Targets, TargetScore
from efface.methods.feature_maps import widened
from efface.models.attended import Attended, attended
from efface.models.attention import visible_attention
from efface.models.evaluation import evaluating
from efface.models.memory import at_once, blocks
from efface.models.scores import differentiable, logits_of, scores_of

ClassesOf = Callable[[Float[Tensor, "n k"]], Targets]
Map = Float[Tensor, "n h w"]
Matrices = Sequence[Float[Tensor, "n t t"]]
PerHead = Sequence[Float[Tensor, "n h _ t"]]
"""Of each block n h t t, and of a head that pools the tokens n h q t."""
Rows = Float[Tensor, "#n r t"]
Combine = Callable[[Attended, PerHead, PerHead], Rows]
"""(how the network attends, attention of all blocks, its gradients) -> the row of each token that the head reads."""
EVERY, LAST = slice(None), slice(-1, None)
"""Blocks whose gradients are computed."""


def by_gradient(
    combine: Combine,
    model: nn.Module,
    images: Images,
    targets: Target,
    score: TargetScore,
    max_batch: int,
    classes_of: ClassesOf | None = None,
    *,
    of: slice = EVERY,
) -> Map:
    """Return the maps of the rows that `combine` computes from the attention of a pass, and from its gradients."""
    found, maps = attended(model, images, pooled=True), []
    with evaluating(model), visible_attention(model, gradients=True) as attention:
        for block in blocks(len(images), at_once(images, max_batch)):
            attention.clear()
            logits = logits_of(model, images[block].detach())
            aims = targets[block] if classes_of is None else classes_of(logits.detach())
            gradients = gradients_of(model, scores_of(logits, aims, score), attention[of], images[block])
            rows = combine(found, [widened(each) for each in attention], gradients)
            maps.append(laid_out(found, rows, images[block]))
    return torch.cat(maps)


def gradients_of(
    model: nn.Module, scores: Float[Tensor, " s"], attention: Sequence[Tensor], images: Images
) -> list[Tensor]:
    """Return the gradients of the scores with respect to the attention of some blocks; 0 where there is none.

    ValueError: the scores have no gradient, or the network computed another number of blocks than before.
    """
    if not scores.requires_grad:
        differentiable(model, images)
    found = torch.autograd.grad(scores.sum(), attention, allow_unused=True)
    return [
        torch.zeros_like(weights) if gradient is None else widened(gradient)
        for gradient, weights in zip(found, attention, strict=True)
    ]


def mean_of_heads(weights: Float[Tensor, "n h q t"]) -> Float[Tensor, "n q t"]:
    """Return the mean over the heads, without a graph."""
    return widened(weights).mean(1)


def first_block(start: int, found: Attended) -> int:
    """Return the number of the first block that is used. ValueError: the network has no such block."""
    if not 0 <= start < found.depth:
        raise ValueError(
            f"start is {start}, but the network has {found.depth} blocks with attention; expected 0 to "
            f"{found.depth - 1}, the number of the first block that is used"
        )
    return start


def through(rows: Rows, matrices: Matrices, share: float = 1.0) -> Float[Tensor, "n r t"]:
    """Return rows (I + B_L) ... (I + B_1), times `share` in each step, for matrices B_1 to B_L.

    The product goes from the left, so that a step costs a product of few rows with a matrix.
    """
    for matrix in reversed(matrices):
        rows = share * (rows + rows @ matrix)
    return rows


def pooled(found: Attended, matrices: Sequence[Float[Tensor, "n _ t"]], share: float = 1.0) -> Float[Tensor, "n r t"]:
    """Return the rows of the tokens that the head reads, followed through all matrices.

    If the head pools the tokens by attention, the rows are those of its queries: the last of the matrices, from which
    the product goes on. Its queries are no tokens of the blocks, so no identity is added to it.
    """
    if found.pools:
        *matrices, last = matrices
        return through(last[:, list(found.read)], matrices, share)
    return through(found.rows(matrices[0]), matrices, share)


def laid_out(found: Attended, rows: Rows, images: Images) -> Map:
    """Return the mean of the rows as maps: the patches in their places, enlarged to the size of the images."""
    small = found.grid.laid_out(rows.mean(1)[:, :, None])
    large = F.interpolate(small, size=images.shape[2:], mode="bilinear", align_corners=False)
    return large.squeeze(1).to(images.dtype)
