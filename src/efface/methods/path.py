"""Gradients along a path from a reference to the image."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from efface.methods.passes import at_least_one, evaluating, gradients_at
from efface.types import Images, Targets


def integrated_gradients(
    model: nn.Module,
    images: Images,
    targets: Targets,
    *,
    steps: int = 50,
    baseline: float | Sequence[float] = 0.0,
    rows: int = 256,
) -> Images:
    """Gradient of the target logit averaged along the straight line from a flat image, times the way travelled.

    Summed over pixels, a map equals logit(image) - logit(flat image), up to the midpoint rule's error,
    which falls fourfold when `steps` doubles where the network is smooth.

    steps: points on the line, at least 1; each costs one forward and one backward pass.
    baseline: value of every pixel of the flat image, in [0, 1]; one number, or one a channel.
    rows: points in one pass, at least 1; bounds the memory, changes maps by rounding only.

    Source: Sundararajan, Taly & Yan 2017, section 5 (arXiv:1703.01365).
    Differs: midpoint rule instead of the right-hand sum.
    """
    at_least_one("steps", steps)
    images = images.detach()
    start = _flat(images, baseline)
    way = images - start
    with evaluating(model):
        total = torch.zeros_like(images)

        def point(block: slice, step: int) -> Images:
            return start + way[block] * ((step + 0.5) / steps)

        for block, _, gradients in gradients_at(model, point, targets, count=steps, rows=rows):
            total[block] += gradients.sum(0)
    return way * total / steps


def _flat(images: Images, baseline: float | Sequence[float]) -> Tensor:
    values = images.new_tensor(baseline).reshape(1, -1, 1, 1)
    if values.shape[1] not in (1, images.shape[1]):
        raise ValueError(
            f"baseline has {values.shape[1]} values; expected one, or one for each of the images' "
            f"{images.shape[1]} channels"
        )
    return values
