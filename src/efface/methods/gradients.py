"""Forward and backward passes of every gradient method, in blocks of at most `max_batch` rows."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.types import Images, Target, TargetScore
from efface.models.memory import blocks
from efface.models.scores import differentiable, scores_of

Gradient = Callable[[nn.Module, Images, Target], Images]
"""The gradient of each point, or a method in its place: (model, points, targets) -> tensor of the points' shape."""


def gradient_at(model: nn.Module, points: Images, targets: Target, score: TargetScore = "logit") -> Images:
    """Gradient of each point's target score at that point: one forward and one backward pass for all points."""
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
    """Yield gradients of the target scores at `count` points per image, in passes of at most `max_batch` points.

    Each item is (slice of the images, number of the first point of the pass, gradients from this point on).

    point: function that makes one point for each image of a block: (block, number of the point) -> images.
    base: function used in place of the gradient, (model, points, targets) -> points' shape. It chooses its own score,
        and `score` has no effect.
    """
    for block in blocks(len(targets), max_batch):
        own = targets[block]
        together = max(1, max_batch // len(own))
        for start in range(0, count, together):
            points = torch.stack([point(block, k) for k in range(start, min(start + together, count))])
            aims = own.repeat(len(points), *(1,) * (own.ndim - 1))
            flat = points.flatten(0, 1)
            gradients = gradient_at(model, flat, aims, score) if base is None else base(model, flat, aims)
            yield block, start, gradients.unflatten(0, points.shape[:2])
