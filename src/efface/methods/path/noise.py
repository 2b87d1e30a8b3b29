"""Gaussian noise on the scale of each image, and what is needed to draw it."""

from torch import Tensor

from efface import draws
from efface.methods.smooth import Noise
from efface.types import Images, Seeds


def gaussian(images: Images, seeds: Seeds, noise: float) -> Images:
    """Normal noise; its standard deviation is a fraction of each image's own range (over all channels)."""
    spread = images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)
    return noise * spread * draws.normal(seeds, tuple(images.shape[1:])).to(images.dtype)


def check_noise(noise: Noise, samples: int) -> None:
    """Refuse a negative fraction, and given noise of another number of samples."""
    if isinstance(noise, Tensor):
        if len(noise) != samples:
            raise ValueError(f"noise holds {len(noise)} samples; expected {samples}")
    elif noise < 0:
        raise ValueError(f"noise is {noise}; expected at least 0, as a fraction of each image's range")


def needed(seeds: Seeds | None, images: Images, instead: str) -> Seeds:
    """The seeds, where the images are. instead: what could be given in their place."""
    if seeds is None:
        raise ValueError(f"seeds are missing; expected one integer an image: pass seeds, or {instead}")
    return seeds.to(images.device)
