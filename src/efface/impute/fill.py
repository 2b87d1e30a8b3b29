"""Fills without a draw: one colour of the data, of the image or of a part of it, and the image blurred."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from efface.erase.blur import gaussian_blur
from efface.plug.facts import states
from efface.types import Images, Mask

Colour = Float[Tensor, " c"] | Sequence[float]
"""One value a channel, in [0, 1]."""


@states(is_flat=True)
def channel_mean(images: Images, removed: Mask, *, mean: Colour) -> Images:  # noqa: ARG001
    """The mean of each channel over the training images: the fill of the original ROAR.

    Source: Hooker et al. 2019, section 3 (arXiv:1806.10758).
    """
    return flat(images, mean)


@states(is_flat=True)
def constant(images: Images, removed: Mask, *, value: float | Sequence[float] = 0.0) -> Images:  # noqa: ARG001
    """One colour. value: in [0, 1], one number or one a channel."""
    return flat(images, [value] * images.shape[1] if isinstance(value, int | float) else value)


def image_mean(images: Images, removed: Mask) -> Images:  # noqa: ARG001
    """Each image's own mean of each channel, over all its pixels, removed or not."""
    return images.mean((2, 3), keepdim=True).expand_as(images)


def kept_mean(
    images: Images, removed: Mask, *, mean: Colour | None = None, over: Literal["channel", "image"] = "channel"
) -> Images:
    """The mean of what each image has kept: nothing of the removed pixels is in it.

    mean: the data set's channel means, for an image that has kept nothing; 0.5 without them.
    over: channel takes each channel's own mean, image one number over all channels, as the original DiffID does.

    Source: Yang et al. 2023, DiffID's fill.
    Differs: a colour by default, taken of the image in [0, 1]; the original takes one grey of the normalised image.
    """
    if over not in ("channel", "image"):
        raise ValueError(f"over is {over!r}; expected channel or image")
    axes = (2, 3) if over == "channel" else (1, 2, 3)
    kept = ~for_channels(removed).expand_as(images)
    count = kept.sum(axes, keepdim=True)
    found = (images * kept).sum(axes, keepdim=True) / count.clamp_min(1)
    return torch.where(count > 0, found, unknown(images, mean))


def patch_mean(images: Images, removed: Mask, *, size: int | Sequence[int] = 9) -> Images:  # noqa: ARG001
    """The mean colour of each patch of the image: coarse structure stays, what a patch showed goes.

    size: height and width of a patch in pixels, one number or two; patches at the right and lower border may be
        smaller. Take it equal to the unit's: a patch that is partly removed betrays its other pixels' mean.

    Source: Schwarzenberg & Castle 2020, degradation (arXiv:2007.10685).
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"size is {size}; expected pixels from 1, one number or height and width")
    h, w = images.shape[2:]
    window = (min(sides[0], h), min(sides[1], w))
    means = F.avg_pool2d(images, window, ceil_mode=True, count_include_pad=False)
    return means.repeat_interleave(window[0], 2)[:, :, :h].repeat_interleave(window[1], 3)[..., :w]


def blur(images: Images, removed: Mask, *, sigma: float = 5.0, kernel: int | None = None) -> Images:  # noqa: ARG001
    """The image itself, blurred: no colour that is foreign to it, no fine structure left.

    sigma: width of the Gaussian in pixels. It sees the removed pixels' own values, so a faint trace of them stays.
    kernel: pixels across, odd; by default 4 sigma to each side. RISE's start of insertion is kernel 11, sigma 5: nearly
        a box of 11 pixels, which leaves more of the image than sigma 5 alone.

    Source: Petsiuk et al. 2018, section 3.2 (arXiv:1806.07421).
    Differs: the border is repeated outwards, where RISE's own code takes black and so darkens the border.
    """
    return gaussian_blur(images, sigma=sigma, kernel=kernel)


def flat(images: Images, values: Colour) -> Images:
    """One colour all over."""
    fill = torch.as_tensor(values, dtype=images.dtype, device=images.device)
    if len(fill) != images.shape[1]:
        raise ValueError(
            f"the fill has {len(fill)} values, the images {images.shape[1]} channels; give one value a channel"
        )
    return fill[:, None, None].expand_as(images)


def unknown(images: Images, mean: Colour | None) -> Images:
    """What an image is filled with that has kept nothing: the data set's mean where it is known, else grey."""
    return flat(images, [0.5] * images.shape[1] if mean is None else mean)


def for_channels(removed: Mask) -> Tensor:
    """The mask with an axis for channels, of length 1 where pixels are removed whole."""
    return removed[:, None] if removed.ndim == 3 else removed


def checked_width(name: str, width: float) -> float:
    """A standard deviation."""
    if not (width >= 0 and math.isfinite(width)):
        raise ValueError(f"{name} is {width}; expected a standard deviation from 0, in units of the image's [0, 1]")
    return width
