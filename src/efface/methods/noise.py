"""Gaussian noise on the scale of each image, drawn or given, and what is needed to draw it."""

from jaxtyping import Float
from torch import Tensor

from efface import draws
from efface.types import Images, Seeds

Noise = float | Float[Tensor, "s n c h w"]
"""Standard deviation as a fraction of each image's own range, or the noise itself."""


def gaussian(images: Images, seeds: Seeds, noise: float) -> Images:
    """Normal noise; its standard deviation is a fraction of each image's own range."""
    return noise * ranges(images) * draws.normal(seeds, tuple(images.shape[1:])).to(images.dtype)


def ranges(images: Images) -> Float[Tensor, "n 1 1 1"]:
    """Each image's maximum minus its minimum over all channels."""
    return images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)


def check_noise(noise: float | Tensor, samples: int, images: Images) -> None:
    """Refuse a negative fraction, and given noise of another number of samples or for other images."""
    if not isinstance(noise, Tensor):
        if noise < 0:
            raise ValueError(f"noise is {noise}; expected at least 0, as a fraction of each image's range")
        return
    if len(noise) != samples:
        raise ValueError(f"noise holds {len(noise)} samples; expected {samples}: set as many samples as are given")
    if noise.shape[1:] != images.shape:
        raise ValueError(f"noise has shape {tuple(noise.shape)}; expected {(samples, *images.shape)}, the images' own")


def needed(seeds: Seeds | None, images: Images, instead: str) -> Seeds:
    """The seeds, where the images are. instead: what could be given in their place."""
    if seeds is None:
        raise ValueError(f"seeds are missing; expected one integer an image: pass seeds, or {instead}")
    return seeds.to(images.device)
