"""Baselines: images without information, at which a path starts."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from efface.base.shown import shown
from efface.base.types import Images
from efface.erase.blur import gaussian_blur

Baseline = float | Sequence[float] | Literal["mean", "blur"] | Tensor
"""Start of a path.

a number, or one per channel, in [0, 1]: an image of one colour; black by default.
mean: an image of one colour, the mean of each channel of the image.
blur: the image after a Gaussian blur.
a tensor: the baseline images themselves, n c h w or c h w.
"""


def start_of(images: Images, baseline: Baseline | str, sigma: float | None) -> Float[Tensor, "#n #c #h #w"]:
    """Return the baseline of each image, in a shape that broadcasts to the images'.

    sigma: standard deviation of the blur, in pixels.
    """
    if isinstance(baseline, str) and baseline == "blur":
        return gaussian_blur(images, sigma=sigma_of(images, sigma))
    if sigma is not None:
        raise ValueError(f"sigma is {sigma}, but the baseline is not blurred: leave it out, or set baseline to 'blur'")
    if isinstance(baseline, str):
        if baseline == "mean":
            return images.mean((2, 3), keepdim=True)
        raise ValueError(
            f"baseline is {shown(baseline)}; expected a number, one per channel, mean, blur or a tensor of images"
        )
    if isinstance(baseline, Tensor) and baseline.ndim > 1:
        if baseline.shape not in (images.shape, images.shape[1:]):
            n, c, h, w = images.shape
            raise ValueError(
                f"baseline has shape {tuple(baseline.shape)}; expected ({c}, {h}, {w}), one image for all, "
                f"or ({n}, {c}, {h}, {w}), one for each"
            )
        return baseline.detach().to(images).reshape(-1, *images.shape[1:])
    values = (baseline.detach().to(images) if isinstance(baseline, Tensor) else images.new_tensor(baseline)).reshape(
        1, -1, 1, 1
    )
    if values.shape[1] not in (1, images.shape[1]):
        raise ValueError(
            f"baseline has {values.shape[1]} values; expected one, or one for each of the images' "
            f"{images.shape[1]} channels"
        )
    return values


def sigma_of(images: Images, sigma: float | None) -> float:
    """Return the blur's standard deviation in pixels; by default 50/224 of the shorter side, as in Blur IG."""
    if sigma is not None and not sigma > 0:
        raise ValueError(f"sigma is {sigma}; expected pixels above 0, or null for 50/224 of the shorter side")
    return min(images.shape[2:]) * 50 / 224 if sigma is None else sigma
