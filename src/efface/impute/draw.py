"""Random fills; each image's fill is drawn with its own seed."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from efface import draws
from efface.impute.fill import Colour, checked_width, flat
from efface.types import Images, Mask, Seeds

Noise = float | Float[Tensor, "n c h w"]
"""Standard deviation in units of the image's [0, 1], or the noise itself."""


def gaussian_noise(
    images: Images,
    removed: Mask,  # noqa: ARG001
    *,
    mean: Colour,
    seeds: Seeds | None = None,
    noise: Noise = 0.25,
) -> Images:
    """Each channel of each removed pixel drawn from a normal distribution around the data set's channel mean.

    Formula: fill = clip(mean + noise * N(0, 1), 0, 1).

    mean: the data set's channel means, or one value per channel.
    seeds: one integer per image. An image's noise depends only on its seed, not on the batch.
    noise: standard deviation, at least 0, in units of the image's [0, 1]. Or the noise itself, n c h w; then no seeds
        are needed.
    """
    return (flat(images, mean) + noise_of(images, seeds, noise)).clamp_(0, 1)


def histogram(
    images: Images,
    removed: Mask,  # noqa: ARG001
    *,
    seeds: Seeds | None = None,
    sources: Int[Tensor, "n h w"] | None = None,
) -> Images:
    """Each removed pixel replaced by a random pixel of the same image: the image's colours stay, their places change.

    All channels come from one pixel, so every colour occurs in the image. The draw includes kept and removed pixels.

    seeds: one integer per image. An image's draws depend only on its seed, not on the batch.
    sources: for each pixel the number of the pixel that replaces it, counted row by row from 0. Then no seeds are
        needed.

    Source: Blücher, Vielhaben & Strodthoff 2024, histogram imputer (arXiv:2401.06654).
    """
    n, c, h, w = images.shape
    if sources is None:
        draw = draws.uniform(_needed(seeds, "sources"), (h, w))
        sources = (draw * (h * w)).long().clamp_(max=h * w - 1)  # a draw has 24 bits, and rounding may reach h * w
    elif sources.min() < 0 or sources.max() >= h * w:
        raise ValueError(
            f"sources are from {sources.min()} to {sources.max()}; expected numbers of pixels, from 0 to {h * w - 1}"
        )
    return images.flatten(2).gather(2, sources.reshape(n, 1, h * w).expand(-1, c, -1)).reshape(images.shape)


def noise_of(images: Images, seeds: Seeds | None, noise: Noise) -> Images:
    """Return the noise of each image, drawn with its seed or given."""
    if isinstance(noise, Tensor):
        return noise.to(images)
    if checked_width("noise", noise) == 0:
        return torch.zeros_like(images)
    return draws.normal(_needed(seeds, "noise"), tuple(images.shape[1:])).to(images) * noise


def _needed(seeds: Seeds | None, other: str) -> Seeds:
    if seeds is None:
        raise ValueError(f"a random fill has no seeds; give seeds, one per image, or the draws themselves as {other}")
    return seeds
