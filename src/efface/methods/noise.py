"""Gaussian noise on the scale of each image, drawn or given, and the checks of its settings."""

from jaxtyping import Float
from torch import Tensor

from efface.base import draws
from efface.base.types import Images, Seeds

Noise = float | Float[Tensor, "s n c h w"]
"""Standard deviation as a fraction of each image's range, or the noise itself."""


def gaussian(images: Images, seeds: Seeds, noise: float) -> Images:
    """Return normal noise. `noise` is its standard deviation as a fraction of each image's range."""
    return noise * ranges(images) * draws.normal(seeds, tuple(images.shape[1:])).to(images.dtype)


def ranges(images: Images) -> Float[Tensor, "n 1 1 1"]:
    """Return each image's maximum minus its minimum over all channels."""
    return images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)


def check_noise(noise: float | Tensor, samples: int, images: Images) -> None:
    """Raise ValueError if a fraction is negative, or if given noise does not fit the samples or the images."""
    if not isinstance(noise, Tensor):
        if noise < 0:
            raise ValueError(f"noise is {noise}; expected at least 0, as a fraction of each image's range")
        return
    if len(noise) != samples:
        raise ValueError(f"noise holds {len(noise)} samples; expected {samples}: set `samples` to {len(noise)}")
    if noise.shape[1:] != images.shape:
        raise ValueError(f"noise has shape {tuple(noise.shape)}; expected {(samples, *images.shape)}, the images' own")


def needed(seeds: Seeds | None, images: Images, instead: str) -> Seeds:
    """Return the seeds on the images' device, or raise ValueError if there are none.

    instead: the argument that the caller could pass in place of seeds, for the message.
    """
    if seeds is None:
        raise ValueError(f"seeds are missing; expected one integer per image: pass seeds, or {instead}")
    return seeds.to(images.device)
