"""Units: which pixels of an image are ranked and removed together; (images, *, settings) -> labels."""

import importlib.util
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from efface.types import Images

Labels = Int[Tensor, "n h w"]
"""Each pixel's group, 0 to the image's number of groups - 1, every one of them used."""


def patch(images: Images, *, size: int | Sequence[int]) -> Labels:
    """A grid of rectangles, counted row by row; what does not fit makes smaller ones at the right and lower border.

    size: height and width of a patch in pixels, one number or two, from 1.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"size is {size}; expected pixels from 1, one number or height and width")
    n, _, h, w = images.shape
    rows, columns = (
        torch.arange(length, device=images.device) // side for length, side in zip((h, w), sides, strict=True)
    )
    return (rows[:, None] * (-(-w // sides[1])) + columns).expand(n, h, w)


def superpixel(images: Images, *, segments: int = 100, compactness: float = 10.0, sigma: float = 0.0) -> Labels:
    """Connected regions of similar colour: SLIC of scikit-image, in CIELAB for three channels.

    An image's labels depend on it alone and no draw is made. Measured: 0.04 s for 224 x 224 on one core.

    segments: regions aimed at, from 1; an image may get more or fewer. An image of fewer pixels gets one each.
    compactness: above 0; how much nearness counts against colour: the greater, the squarer. 10 suits CIELAB; other
        channels are compared as they are, in [0, 1], where 0.1 does the same.
    sigma: width in pixels of a Gaussian that smooths the image beforehand, from 0; 0 leaves it.

    Source: Achanta et al. 2012, SLIC; as a unit, Rieger & Hansen 2020, IROF (arXiv:2003.08747).
    """
    if segments < 1 or not compactness > 0 or not sigma >= 0:
        raise ValueError(
            f"segments is {segments}, compactness {compactness}, sigma {sigma}; expected at least 1, above 0, from 0"
        )
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise ImportError(_NO_SUPERPIXELS) from error
    found = []
    for image in images.detach().double().permute(0, 2, 3, 1).cpu().numpy():
        regions = slic(
            image,
            n_segments=segments,
            compactness=compactness,
            sigma=sigma,
            start_label=0,
            channel_axis=-1,
            convert2lab=image.shape[-1] == 3,
        )
        found.append(np.unique(regions, return_inverse=True)[1].reshape(regions.shape))
    return torch.from_numpy(np.stack(found)).to(images.device, torch.int64)


_NO_SUPERPIXELS = "superpixels are made by scikit-image, which is not installed; run: pip install 'efface[superpixel]'"


def check_superpixel() -> None:
    """ValueError: scikit-image is not installed. A study that names the unit is refused before any work."""
    if importlib.util.find_spec("skimage") is None:
        raise ValueError(_NO_SUPERPIXELS)


def group_means(maps: Float[Tensor, "n h w"], labels: Labels) -> Float[Tensor, "n g"]:
    """Mean of each group's pixels; -inf where an image has fewer groups than another.

    Summed in float64: a constant map's groups are then exactly equal, whatever their sizes, and tie as its pixels do.
    """
    flat, where = maps.flatten(1).double(), labels.flatten(1)
    groups = int(where.max()) + 1
    sums = flat.new_zeros(len(flat), groups).scatter_add_(1, where, flat)
    sizes = flat.new_zeros(len(flat), groups).scatter_add_(1, where, torch.ones_like(flat))
    return (sums / sizes.clamp_min(1)).to(maps.dtype).masked_fill(sizes == 0, -torch.inf)


def spread(values: Shaped[Tensor, "n g"], labels: Labels) -> Shaped[Tensor, "n h w"]:
    """Each pixel gets its group's value."""
    return values.gather(1, labels.flatten(1)).reshape(labels.shape)
