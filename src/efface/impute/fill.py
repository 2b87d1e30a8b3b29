"""Fills without randomness: one colour of the data, of the image or of a part of it, and the blurred image."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from efface.base.shown import shown
from efface.base.types import Images, Mask
from efface.erase.blur import gaussian_blur, spot_weights, weighted
from efface.plug.facts import states

Colour = Float[Tensor, " c"] | Sequence[float]
"""One value per channel, in [0, 1]."""
Border = Literal["mean", "black", "repeat"]


@states(is_flat=True)
def channel_mean(images: Images, removed: Mask, *, mean: Colour) -> Images:  # noqa: ARG001
    """Mean of each channel over the training images: the fill of the original ROAR.

    mean: the data set's channel means, or one value per channel.

    Source: Hooker et al. 2019, section 3 (arXiv:1806.10758).
    """
    return flat(images, mean)


@states(is_flat=True)
def constant(images: Images, removed: Mask, *, value: float | Sequence[float] = 0.0) -> Images:  # noqa: ARG001
    """One colour.

    value: the colour, in [0, 1], one number or one per channel.
    """
    return flat(images, [value] * images.shape[1] if isinstance(value, int | float) else value)


def image_mean(images: Images, removed: Mask) -> Images:  # noqa: ARG001
    """Mean of each channel over all pixels of the image, kept and removed."""
    return images.mean((2, 3), keepdim=True).expand_as(images)


def kept_mean(
    images: Images, removed: Mask, *, mean: Colour | None = None, over: Literal["channel", "image"] = "channel"
) -> Images:
    """Mean of the image's kept pixels; the removed pixels have no part in it.

    mean: the data set's channel means, for an image without kept pixels; 0.5 without them.
    over: channel, the mean of each channel; or image, one mean over all channels, as in the original DiffID.

    Source: Yang et al., ICLR 2023, the fill of DiffID.
    Differs: by default the fill is a colour of the image in [0, 1]; the original is one grey of the normalised image.
    """
    if over not in ("channel", "image"):
        raise ValueError(f"over is {shown(over)}; expected channel or image")
    axes = (2, 3) if over == "channel" else (1, 2, 3)
    kept = ~for_channels(removed).expand_as(images)
    count = kept.sum(axes, keepdim=True)
    means = (images * kept).sum(axes, keepdim=True) / count.clamp_min(1)
    return torch.where(count > 0, means, unknown(images, mean))


def patch_mean(images: Images, removed: Mask, *, size: int | Sequence[int] = 9) -> Images:  # noqa: ARG001
    """Mean colour of each patch of the image: coarse structure stays, details inside a patch disappear.

    size: height and width of a patch in pixels, one number or two. Patches at the right and lower border may be
        smaller. Use the patch size of the study's `unit`. In a partly removed patch, the fill and the kept pixels
        together reveal the mean of the removed pixels.

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
    """Blurred image: it has only colours of the image, and no fine structure.

    sigma: standard deviation of the Gaussian in pixels. The blur includes the removed pixels, so a weak trace of them
        stays.
    kernel: width of the kernel in pixels, odd; by default 4 sigma to each side. A smaller kernel cuts the Gaussian off.

    Source: Petsiuk et al. 2018, section 3.2 (arXiv:1806.07421).
    Differs: a Gaussian, cut off if `kernel` says so, whose border is repeated outwards. `rise_blur` is that of the
        released code.
    """
    return gaussian_blur(images, sigma=sigma, kernel=kernel)


def rise_blur(
    images: Images,
    removed: Mask,  # noqa: ARG001
    *,
    mean: Colour | None = None,
    sigma: float = 5.0,
    kernel: int = 11,
    border: Border = "mean",
) -> Images:
    """Blurred image as the released code of RISE makes it, to start its insertion: nearly a box of 11 pixels.

    The kernel is one bright pixel, blurred by a Gaussian in a window of `kernel` pixels that is mirrored at its edges.
    Its largest weight is 1.14 times its smallest, where that of `blur {sigma: 5, kernel: 11}` is 2.72 times.

    mean: the data set's channel means, or one value per channel, for `border: mean`.
    sigma: standard deviation of that Gaussian in pixels, above 0.
    kernel: width of the window in pixels, odd.
    border: what lies beyond the image. mean: the mean colour, which is 0 after normalisation, as in the code. black: 0
        before normalisation; it darkens the border. repeat: the border's own pixels, as in `blur`.

    Source: Petsiuk, Das & Saenko 2018 (arXiv:1806.07421), the kernel of the released code.
    Differs: the mean is that of this data set, where the code's is that of ImageNet.
    """
    if border not in get_args(Border):
        raise ValueError(f"rise_blur: border is {shown(border)}; expected {', '.join(get_args(Border))}")
    weights = spot_weights(sigma=sigma, kernel=kernel)
    if border != "mean":
        return weighted(images, weights, repeated=border == "repeat")
    if mean is None:
        raise ValueError(
            "rise_blur: border is mean, but no mean is given; give one value per channel, or border: black"
        )
    beyond = flat(images, mean)
    return weighted(images - beyond, weights, repeated=False) + beyond


def flat(images: Images, values: Colour) -> Images:
    """Return images of one colour."""
    fill = torch.as_tensor(values, dtype=images.dtype, device=images.device)
    if len(fill) != images.shape[1]:
        raise ValueError(
            f"the fill has {len(fill)} values, the images {images.shape[1]} channels; give one value per channel"
        )
    return fill[:, None, None].expand_as(images)


def unknown(images: Images, mean: Colour | None) -> Images:
    """Return the fill of an image without kept pixels: the data set's mean where it is known, else grey."""
    return flat(images, [0.5] * images.shape[1] if mean is None else mean)


def for_channels(removed: Mask) -> Tensor:
    """Return the mask with a channel axis, of length 1 if whole pixels are removed."""
    return removed[:, None] if removed.ndim == 3 else removed


def checked_width(name: str, width: float) -> float:
    """Return the standard deviation, or raise ValueError if it is negative or not finite."""
    if not (width >= 0 and math.isfinite(width)):
        raise ValueError(f"{name} is {width}; expected a standard deviation from 0, in units of the image's [0, 1]")
    return width
