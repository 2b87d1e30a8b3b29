"""Random fills; each image's fill is drawn with its own seed."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from efface.base import draws
from efface.base.types import Images, Mask, Seeds, Split
from efface.impute.fill import Colour, checked_width, flat
from efface.plug.facts import states
from efface.store.arrays import read_rows

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


@states(is_averaged=True)
def histogram(
    images: Images,
    removed: Mask,  # noqa: ARG001
    *,
    seeds: Seeds | None = None,
    bins: int = 7,
    samples: int = 5,  # noqa: ARG001
    pixels: Int[Tensor, " n"] | None = None,
) -> Images:
    """One colour for all removed pixels of an image, drawn from the colours of the image.

    A pixel of the image is drawn, kept or removed. The colour is the mean over all pixels whose channels fall into the
    same bins as its own. So a colour that many pixels share is drawn more often. A metric that scores the given network
    on erased images takes the mean score of `samples` such colours. A new network is trained and tested on one colour
    for each image, and other metrics draw a colour for each set of units.

    seeds: one integer per image. An image's colour depends only on its seed, not on the batch.
    bins: bins of a channel's values, at least 1, of equal width in [0, 1].
    samples: colours over which a score is averaged, at least 1. Each costs a forward pass of the test images.
    pixels: for each image the number of the pixel that is drawn, counted row by row from 0. Then no seeds are needed.

    Source: Blücher, Vielhaben & Strodthoff 2024, histogram imputer and its released code (arXiv:2401.06654).
    Differs: the bins divide [0, 1]; the code's divide the range of the normalised training images. The code leaves
        values on the border of two bins out of the mean. It takes colour images alone.
    """
    check_histogram(bins=bins)
    n, c, h, w = images.shape
    if pixels is None:
        draw = draws.uniform(_needed(seeds, "pixels"), (1,))[:, 0]
        pixels = (draw * (h * w)).long().clamp_(max=h * w - 1)  # a draw has 24 bits, and rounding may reach h * w
    _inside("pixels", pixels, h * w)
    values = images.flatten(2)
    places = (values * bins).long().clamp_(0, bins - 1)
    own = places.gather(2, pixels.to(images.device)[:, None, None].expand(-1, c, -1))
    alike = (places == own).all(1, keepdim=True).to(images.dtype)
    colour = (values * alike).sum(2) / alike.sum(2)
    return colour[:, :, None, None].expand(n, c, h, w)


def check_histogram(bins: int = 7, samples: int = 5) -> None:
    """Raise ValueError if a number is below 1."""
    for name, value in (("bins", bins), ("samples", samples)):
        if value < 1:
            raise ValueError(f"histogram: {name} is {value}; expected a whole number of at least 1: raise it")


def image_pixels(
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
    """
    n, c, h, w = images.shape
    if sources is None:
        draw = draws.uniform(_needed(seeds, "sources"), (h, w))
        sources = (draw * (h * w)).long().clamp_(max=h * w - 1)  # a draw has 24 bits, and rounding may reach h * w
    _inside("sources", sources, h * w)
    return images.flatten(2).gather(2, sources.reshape(n, 1, h * w).expand(-1, c, -1)).reshape(images.shape)


@states(is_averaged=True)
def train_image(
    images: Images,
    removed: Mask,  # noqa: ARG001
    *,
    training: Split | None,
    seeds: Seeds | None = None,
    samples: int = 5,  # noqa: ARG001
    rows: Int[Tensor, " n"] | None = None,
) -> Images:
    """Pixels of a training image at the same places: what is removed from an image comes from one other image.

    A metric that scores the given network on erased images takes the mean score of `samples` such images. A new network
    is trained and tested on one for each image, and other metrics draw one for each set of units. If training images
    are erased, an image is drawn for itself once in as many times as there are training images.

    training: the training split; its validation rows are not drawn.
    seeds: one integer per image. The training image that is drawn depends only on this seed, not on the batch.
    samples: training images over which a score is averaged, at least 1. Each costs a forward pass of the test images.
    rows: for each image the number of a row of the training split. Then no seeds are needed.

    Source: Blücher, Vielhaben & Strodthoff 2024, the imputer of training images (arXiv:2401.06654).
    """
    if training is None:
        raise ValueError(
            "train_image fills with training images, and these data have none; expected data with a training split: "
            "name one, or take another imputer"
        )
    if rows is None:
        open_to, draw = training.training, draws.uniform(_needed(seeds, "rows"), (1,))[:, 0].cpu()
        rows = open_to[(draw * len(open_to)).long().clamp_(max=len(open_to) - 1)]
    drawn = read_rows(training.images, rows.cpu()).to(images.device).to(images.dtype) / 255
    down, across = ((own - other) // 2 for own, other in zip(images.shape[2:], drawn.shape[2:], strict=True))
    if down or across:  # a training pads its images with the fill
        drawn = F.pad(drawn, (across, across, down, down), mode="replicate")
    return drawn


def check_train_image(samples: int = 5) -> None:
    """Raise ValueError if the number of images is below 1."""
    if samples < 1:
        raise ValueError(f"train_image: samples is {samples}; expected a whole number of at least 1: raise it")


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


def _inside(name: str, numbers: Tensor, count: int) -> None:
    if numbers.min() < 0 or numbers.max() >= count:
        raise ValueError(
            f"{name} are from {numbers.min()} to {numbers.max()}; expected numbers of pixels, from 0 to {count - 1}"
        )
