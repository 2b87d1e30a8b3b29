"""The image without information that a path starts from."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from efface.erase.blur import gaussian_blur
from efface.types import Images

Baseline = float | Sequence[float] | Literal["mean", "blur"] | Tensor
"""One number, or one a channel, in [0, 1]: flat, black by default; mean: flat, each channel's own mean; blur: the
image under a Gaussian blur; or the images themselves, n c h w or c h w."""


def start_of(images: Images, baseline: Baseline | str, sigma: float | None) -> Float[Tensor, "#n #c #h #w"]:
    """The baseline of each image, in a shape that goes with the images'. sigma: of the blur."""
    if isinstance(baseline, str) and baseline == "blur":
        return gaussian_blur(images, sigma=sigma_of(images, sigma))
    if sigma is not None:
        raise ValueError(f"sigma is {sigma}, but nothing is blurred: leave it out, or set baseline to 'blur'")
    if isinstance(baseline, str):
        if baseline == "mean":
            return images.mean((2, 3), keepdim=True)
        raise ValueError(
            f"baseline is {baseline!r}; expected a number, one a channel, mean, blur or a tensor of images"
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
    """The blur's standard deviation in pixels; by default Blur IG's 50 on images of 224, in proportion."""
    if sigma is not None and not sigma > 0:
        raise ValueError(f"sigma is {sigma}; expected pixels above 0, or none for 50/224 of the shorter side")
    return min(images.shape[2:]) * 50 / 224 if sigma is None else sigma
