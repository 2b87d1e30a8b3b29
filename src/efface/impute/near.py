"""Linear interpolation of many images where kept pixels are near everywhere: a few cheap steps instead of multigrid.

In each step, every removed pixel takes the mean of its neighbours. A bound on the error is known before the first step:
start with an error of 1 at every removed pixel, and run some steps. The remaining error bounds that of every other
start with an error of at most 1. The bound gives Chebyshev's factors, the number of steps, and the largest error of the
result.

Source: Varga 1962, Matrix Iterative Analysis, chapter 5.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from efface.impute.multigrid import neighbours

_STEPS = 8
KINDS = 3
_LEFT = (0.3, 0.55, 0.8)  # remaining error after these steps, by kind; measured: cheaper than multigrid up to 0.8


def reach(removed: Bool[Tensor, "n h w"], total: Float[Tensor, "1 1 h w"]) -> tuple[Tensor, Tensor]:
    """Return for each image its kind, and the bound on the error per size of a step.

    The kind is the number of values in `_LEFT` below the remaining error. KINDS means that kept pixels are too far. The
    bound is the largest error for a residual of 1 everywhere: the mean number of steps until a kept pixel is reached.
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
    """Return the images with each removed pixel close to the mean of its neighbours, and the largest difference.

    All images have the same kind. The number of steps reduces an error of 1 below half the tolerance.
    """
    rate = _LEFT[kind] ** (1 / _STEPS)
    # eigenvalues of the neighbours' mean: at least -1/3 inside, -1/2 at a border, -3/5 in a corner, -1 along a line
    lowest, highest = 1 - rate, 1 + min(rate, 1.0 if min(removed.shape[1:]) == 1 else 0.6)
    centre, radius = (highest + lowest) / 2, (highest - lowest) / 2
    root = math.sqrt(highest / lowest)
    steps = math.ceil(math.log(4 / tolerance) / math.log((root + 1) / (root - 1)))
    share = removed[:, None] / total
    filled, change, alpha = images.clone(), torch.zeros_like(images), 1.0
    for step in range(steps):
        # Chebyshev's recurrence; the second step has only two earlier terms
        beta = (radius * alpha / 2) ** 2 * (2 if step == 1 else 1) if step else 0.0
        alpha = 1 / (centre - beta / alpha) if step else 1 / centre
        change.mul_(beta).addcmul_(share, _unmet(filled, total))
        filled.add_(change, alpha=alpha)
    return filled, (share * _unmet(filled, total)).abs().amax((1, 2, 3))


def _unmet(values: Tensor, total: Tensor) -> Tensor:
    return neighbours(values).addcmul_(total, values, value=-1)
