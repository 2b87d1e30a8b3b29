"""Guided IG: a path that first moves the features with the smallest gradient."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.types import Images, Target, TargetScore
from efface.methods.gradients import gradient_at
from efface.methods.path.baseline import Baseline, start_of
from efface.models.evaluation import evaluating_fast
from efface.models.memory import at_least_one, blocks


def guided_ig(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    steps: int = 200,
    fraction: float = 0.25,
    max_distance: float = 0.02,
    baseline: Baseline = 0.0,
    sigma: float | None = None,
    score: TargetScore = "logit",
    max_batch: int = 256,
) -> Images:
    """Gradient of the target logit along a path that moves the features of smallest gradient first, times the way.

    Formula: map = sum over k of grad f(x_k) * (x_(k+1) - x_k), with x_k the points of the path.

    Every step shortens the L1 distance to the image by the same amount. Summed over pixels, a map equals
    logit(image) - logit(baseline), up to an error that falls when `steps` grows.

    steps: steps of the path, at least 1. Each costs one forward and one backward pass and a sort; steps cannot run in
        parallel.
    fraction: part of the features, in [0, 1], that moves together before the next part; features of smallest gradient
        move first.
    max_distance: largest distance of a feature ahead of or behind the straight line, as a fraction of its way, in
        [0, 1]. 0 is the straight line with rule `left`; 1 does not restrict the path.
    baseline, sigma: as in `integrated_gradients`.
    score: score of the target class to differentiate: logit, log_probability, probability or loss (cross entropy).
    max_batch: most images in one pass, at least 1. It limits the memory and changes maps by rounding only. The order of
        nearly equal gradients is sensitive to rounding: we measured 2e-4 of a map's maximum in single precision.

    Source: Kapishnikov et al. 2021, algorithm 1 (arXiv:2106.09788); the defaults are those of their code.
    Differs: among features with equal gradients, the first ones move first; in their code all of them move at once.
    """
    at_least_one("steps", steps)
    for name, value in (("fraction", fraction), ("max_distance", max_distance)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; expected a fraction in [0, 1]")
    images = images.detach()
    with evaluating_fast(model, images) as network:
        way = images - start_of(images, baseline, sigma)
        total = torch.zeros_like(way)
        for block in blocks(len(images), max_batch):
            done = torch.zeros_like(way[block]).flatten(1)
            for step in range(1, steps + 1):
                point = images[block] - way[block] * (1 - done).view_as(way[block])
                gradient = gradient_at(network, point, targets[block], score)
                low, high = max(step / steps - max_distance, 0.0), min(step / steps + max_distance, 1.0)
                after = done.clamp(min=low)
                if step < steps:
                    width = way[block].flatten(1).abs()
                    after += _share(gradient.flatten(1).abs(), width, after, step / steps, high, fraction)
                else:
                    after.fill_(1.0)
                total[block] += gradient * way[block] * (after - done).view_as(way[block])
                done = after
        return total


def _share(
    slope: Float[Tensor, "n d"],
    width: Float[Tensor, "n d"],
    done: Float[Tensor, "n d"],
    aim: float,
    high: float,
    fraction: float,
) -> Float[Tensor, "n d"]:
    """Return the movement of each feature, as a fraction of its way, after which the path has reached `aim` of the way.

    The features form groups of equal size, by increasing slope. Group after group moves up to `high`, until the aim is
    reached. The last group moves only in part.
    """
    room = (high - done).clamp(min=0)
    able = room * width
    order = torch.where(able > 0, slope, torch.inf).argsort(dim=1, stable=True)
    size = int(fraction * (slope.shape[1] - 1)) + 1
    groups = -(-slope.shape[1] // size)
    ordered = able.gather(1, order).double()  # double, because sums have up to 150 000 terms
    capacity = nn.functional.pad(ordered, (0, groups * size - slope.shape[1])).unflatten(1, (groups, size)).sum(2)
    missing = (width.double() * (aim - done.double())).sum(1, keepdim=True)
    left = missing - (capacity.cumsum(1) - capacity)
    part = (left / torch.where(capacity > 0, capacity, 1.0)).clamp(0, 1)
    shares = part.repeat_interleave(size, 1)[:, : slope.shape[1]].to(room)
    return room * torch.empty_like(room).scatter_(1, order, shares)
