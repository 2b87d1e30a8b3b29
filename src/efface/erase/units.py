"""Units: groups of pixels that are ranked and removed together, as functions (images, *, settings) -> labels."""

import importlib.util
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from efface.base.types import Images

Labels = Int[Tensor, "n h w"]
"""Group of each pixel, from 0 to the number of groups of the image - 1. Every group has a pixel."""


def patch(images: Images, *, size: int | Sequence[int]) -> Labels:
    """A grid of rectangles, numbered row by row. Those at the right and lower border are smaller if needed.

    size: height and width of a patch in pixels, one number or two, at least 1.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"size is {size}; expected pixels from 1, one number or height and width")
    n, _, h, w = images.shape
    rows, columns = (
        torch.arange(length, device=images.device) // side for length, side in zip((h, w), sides, strict=True)
    )
    return (rows[:, None] * (-(-w // sides[1])) + columns).expand(n, h, w)


def token(images: Images, *, token_size: int | Sequence[int]) -> Labels:
    """The patches that the explained network cuts its images into, numbered row by row. In a ViT each has a token.

    They are those of the first layer, also for a Swin or a ConvNeXt. A network without patches is refused.

    token_size: height and width of the network's patches in pixels. The run finds them and hands them over; they are
        part of the key of each result.
    """
    return patch(images, size=token_size)


def check_token(*, token_size: object = None) -> None:
    """Raise ValueError for a study that sets the size itself: other patches than the network's are `patch`."""
    if token_size is not None:
        raise ValueError(
            f"token_size is {token_size}, but unit token has the size of the network's own patches; drop it, or take "
            "unit patch with this size"
        )


def superpixel(images: Images, *, segments: int = 100, compactness: float = 10.0, sigma: float = 0.0) -> Labels:
    """Connected regions of similar colour: SLIC of scikit-image, in CIELAB for three channels.

    The labels of an image depend only on the image; nothing is drawn. Measured: 0.04 s for 224 x 224 on one core.

    segments: number of regions to aim at, at least 1. An image may get more or fewer. An image with fewer pixels gets
        one region for each pixel.
    compactness: weight of distance against colour, above 0. Larger values give squarer regions. 10 suits CIELAB. Images
        with other numbers of channels are compared in [0, 1], where 0.1 has the same effect.
    sigma: width in pixels of a Gaussian that smooths the image first, at least 0. 0: no smoothing.

    Source: Achanta et al. 2012, SLIC; as a unit, Rieger & Hansen 2020, IROF (arXiv:2003.08747).
    """
    if segments < 1 or not compactness > 0 or not sigma >= 0:
        raise ValueError(
            f"segments is {segments}, compactness is {compactness}, sigma is {sigma}; "
            "expected segments of at least 1, compactness above 0, sigma of at least 0"
        )
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise ImportError(_NO_SUPERPIXELS) from error
    labels = []
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
        labels.append(np.unique(regions, return_inverse=True)[1].reshape(regions.shape))
    return torch.from_numpy(np.stack(labels)).to(images.device, torch.int64)


_NO_SUPERPIXELS = "superpixels need scikit-image, which is not installed; run: pip install 'efface[superpixel]'"


def check_superpixel() -> None:
    """Raise ValueError if scikit-image is not installed. A study with this unit is then refused before any work."""
    if importlib.util.find_spec("skimage") is None:
        raise ValueError(_NO_SUPERPIXELS)


def group_means(maps: Float[Tensor, "n h w"], labels: Labels) -> Float[Tensor, "n g"]:
    """Return the mean of the pixels of each group; -inf for groups that an image does not have.

    The sums are in float64. Groups of a constant map are then exactly equal for all sizes, and tie as its pixels do.
    """
    flat, where = maps.flatten(1).double(), labels.flatten(1)
    groups = int(where.max()) + 1
    sums = flat.new_zeros(len(flat), groups).scatter_add_(1, where, flat)
    sizes = flat.new_zeros(len(flat), groups).scatter_add_(1, where, torch.ones_like(flat))
    return (sums / sizes.clamp_min(1)).to(maps.dtype).masked_fill(sizes == 0, -torch.inf)


def spread(values: Shaped[Tensor, "n g"], labels: Labels) -> Shaped[Tensor, "n h w"]:
    """Give each pixel the value of its group."""
    return values.gather(1, labels.flatten(1)).reshape(labels.shape)
