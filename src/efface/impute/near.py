"""Many linear interpolations at once where kept pixels are near everywhere: a few cheap steps instead of multigrid.

Step after step each removed pixel takes its neighbours' mean. What a step can reduce the error by is known beforehand,
not guessed: of an error of 1 everywhere, what the kept pixels have left of it after some steps is the most that they
leave of any. That bound gives Chebyshev's factors, the number of steps, and the largest error of the result.

Source: Varga 1962, Matrix Iterative Analysis, chapter 5.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from efface.impute.multigrid import neighbours

_STEPS = 8
KINDS = 3
_LEFT = (0.3, 0.55, 0.8)  # of the error after those steps: up to 0.8 cheaper than multigrid, measured


def reach(removed: Bool[Tensor, "n h w"], total: Float[Tensor, "1 1 h w"]) -> tuple[Tensor, Tensor]:
    """For each image: which kind of near it is, KINDS where it is none; and what bounds an error by a step's size.

    The bound is the largest error for a residual of 1 everywhere: the mean number of steps until a kept pixel is met.
    """
    share = removed[:, None] / total
    left = removed[:, None].float()
    met = left.clone()
    for _ in range(_STEPS - 1):
        left = neighbours(left).mul_(share)
        met += left
    last = neighbours(left).mul_(share).amax((1, 2, 3))
    kind = torch.stack([last > most for most in _LEFT]).sum(0)
    return kind, met.amax((1, 2, 3)) / (1 - last).clamp_min(1e-6)


def settle(
    images: Float[Tensor, "n c h w"],
    removed: Bool[Tensor, "n h w"],
    total: Float[Tensor, "1 1 h w"],
    kind: int,
    *,
    tolerance: float,
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, " n"]]:
    """The images, each removed pixel close to the mean of its neighbours; and how far the farthest is from it.

    All of one kind: as many steps as bring an error of 1 below half the tolerance.
    """
    rate = _LEFT[kind] ** (1 / _STEPS)
    # no wave of the neighbours' mean is below -1/3 inside, -1/2 at a border, -3/5 in a corner, -1 along a single line
    lowest, highest = 1 - rate, 1 + min(rate, 1.0 if min(removed.shape[1:]) == 1 else 0.6)
    centre, radius = (highest + lowest) / 2, (highest - lowest) / 2
    root = math.sqrt(highest / lowest)
    steps = math.ceil(math.log(4 / tolerance) / math.log((root + 1) / (root - 1)))
    share = removed[:, None] / total
    found, change, alpha = images.clone(), torch.zeros_like(images), 1.0
    for step in range(steps):
        # Chebyshev's recurrence; the second step has no third term to come from
        beta = (radius * alpha / 2) ** 2 * (2 if step == 1 else 1) if step else 0.0
        alpha = 1 / (centre - beta / alpha) if step else 1 / centre
        change.mul_(beta).addcmul_(share, _unmet(found, total))
        found.add_(change, alpha=alpha)
    return found, (share * _unmet(found, total)).abs().amax((1, 2, 3))


def _unmet(values: Tensor, total: Tensor) -> Tensor:
    return neighbours(values).addcmul_(total, values, value=-1)
