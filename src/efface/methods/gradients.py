"""The passes of every gradient method: bounded by the row budget, the model afterwards as it was before."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.models.memory import blocks
from efface.models.scores import differentiable, scores_of
from efface.types import Images, Target, TargetScore

Gradient = Callable[[nn.Module, Images, Target], Images]
"""Whatever stands for the gradient of each point: (model, points, targets) -> points' shape."""


def gradient_at(model: nn.Module, points: Images, targets: Target, score: TargetScore = "logit") -> Images:
    """Gradient of each point's target score at that point: one forward and one backward pass of them all."""
    points = points.detach().clone().requires_grad_()
    scores = scores_of(differentiable(model, points), targets, score)
    (gradient,) = torch.autograd.grad(scores.sum(), points)
    return gradient


def gradients_at(
    model: nn.Module,
    point: Callable[[slice, int], Images],
    targets: Target,
    *,
    count: int,
    max_batch: int,
    score: TargetScore = "logit",
    base: Gradient | None = None,
) -> Iterator[tuple[slice, int, Float[Tensor, "s n c h w"]]]:
    """Gradients of the target scores at `count` points for each image, in passes of at most `max_batch` points.

    Yields, block by block: the images' slice, the number of the pass's first point, the gradients from there on.

    point: makes one point for each image of a block: (block, number of the point) -> images.
    base: what stands for the gradient, (model, points, targets) -> points' shape; then `score` is its own.
    """
    for block in blocks(len(targets), max_batch):
        own = targets[block]
        together = max(1, max_batch // len(own))
        for start in range(0, count, together):
            points = torch.stack([point(block, k) for k in range(start, min(start + together, count))])
            each = own.repeat(len(points), *(1,) * (own.ndim - 1))
            flat = points.flatten(0, 1)
            gradients = gradient_at(model, flat, each, score) if base is None else base(model, flat, each)
            yield block, start, gradients.unflatten(0, points.shape[:2])
