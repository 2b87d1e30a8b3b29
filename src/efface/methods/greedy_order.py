"""The order of an image's cells that a network's own response gives, one cell at a time."""

from typing import Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor, nn

from efface.base.shown import shown
from efface.base.types import Images, Target, TargetScore
from efface.methods.occlusion import Value, filling, passes, point_scores
from efface.models.evaluation import evaluating_fast

Order = Literal["deletion", "insertion"]


def grid_of_cells(images: Images, cells: int) -> Int[Tensor, "h w"]:
    """Return the cell of each pixel, numbered row by row, in a grid of `cells` x `cells`.

    ValueError: the grid has no cell, or more cells than pixels along a side.
    """
    h, w = images.shape[2:]
    if not 1 <= cells <= min(h, w):
        raise ValueError(f"cells is {cells}; expected 1 to {min(h, w)}, the pixels of the shorter side")
    down, across = (torch.arange(length, device=images.device) * cells // length for length in (h, w))
    return down[:, None] * cells + across


def greedy_order(
    model: nn.Module,
    images: Images,
    targets: Target,
    labels: Int[Tensor, "h w"],
    *,
    order: Order,
    value: Value,
    score: TargetScore,
    max_batch: int,
) -> Int[Tensor, "n k"]:
    """Return the cells of each image in the order in which they are taken; with equal scores, the lower number first.

    labels: the cell of each pixel.
    order: deletion hides the cell without which the score is lowest, then the next one beside it. insertion starts from
        a hidden image, and shows the cell with which the score is highest.
    value: value of hidden pixels, as in `occlusion`.
    """
    if order not in get_args(Order):
        raise ValueError(f"order is {shown(order)}; expected {' or '.join(get_args(Order))}")
    fill, count = filling(images, value), int(labels.max()) + 1
    hides = order == "deletion"
    with evaluating_fast(model, images) as network, torch.no_grad():
        taken = torch.zeros(len(images), count, dtype=torch.bool, device=images.device)
        found = torch.empty(len(images), count, dtype=torch.int64, device=images.device)
        for step in range(count):
            left = (~taken).nonzero()[:, 1].unflatten(0, (len(images), count - step))
            scores = images.new_empty(len(images), count - step)
            for block, some in passes(len(images), count - step, max_batch):
                tried = taken[block].repeat(some.stop - some.start, 1, 1)
                tried.scatter_(2, left[block, some].T[:, :, None], value=True)
                hidden = (tried if hides else ~tried)[:, :, labels]
                points = torch.where(hidden[:, :, None], fill[block], images[block])
                scores[block, some] = point_scores(network, points, targets[block], score).T.to(scores.dtype)
            best = scores.argmin(1, keepdim=True) if hides else scores.argmax(1, keepdim=True)
            found[:, step] = left.gather(1, best)[:, 0]
            taken.scatter_(1, found[:, step : step + 1], value=True)
    return found
