"""Units: which pixels of an image are ranked and removed together; (images, *, settings) -> labels."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

Labels = Int[Tensor, "n h w"]


def group_means(maps: Float[Tensor, "n h w"], labels: Labels) -> Float[Tensor, "n g"]:
    """Mean of each group's pixels; -inf where an image has fewer groups than another."""
    flat, where = maps.flatten(1), labels.flatten(1)
    groups = int(where.max()) + 1
    sums = flat.new_zeros(len(flat), groups).scatter_add_(1, where, flat)
    sizes = flat.new_zeros(len(flat), groups).scatter_add_(1, where, torch.ones_like(flat))
    return (sums / sizes.clamp_min(1)).masked_fill(sizes == 0, -torch.inf)


def spread(values: Shaped[Tensor, "n g"], labels: Labels) -> Shaped[Tensor, "n h w"]:
    """Each pixel gets its group's value."""
    return values.gather(1, labels.flatten(1)).reshape(labels.shape)
