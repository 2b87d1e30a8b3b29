"""Random changes of training images for a study's `fit.augment`: colours, rotation, an enlarged window.

Each is a function `(images, seeds, **settings) -> images`. It returns images of the same shape in [0, 1]. The draws of
an image depend on its seed alone, so the batch size changes nothing.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from efface.base import draws
from efface.base.types import Images, Seeds

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
_TRIES = 10


def colour_jitter(
    images: Images, seeds: Seeds, *, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0
) -> Images:
    """Change brightness, contrast and saturation of each image by random factors, in a random order for each image.

    A factor f returns f * image + (1 - f) * reference, clipped to [0, 1]. The reference is black for brightness, the
    mean grey of the image for contrast, and the grey of each pixel for saturation.
    Formula: grey = 0.299 red + 0.587 green + 0.114 blue.

    brightness, contrast, saturation: at least 0; the factor is uniform in [max(0, 1 - value), 1 + value]. 0 changes
        nothing.
    ValueError: the images have neither one nor three channels; or saturation is set for one channel.

    Source: torchvision's ColorJitter, with the same factors.
    Differs: no hue; one channel with saturation is refused instead of left as it is; red has the weight 0.299 of the
        standard, so that grey stays grey, instead of the 0.2989 of torchvision's tensors.
    """
    check_colour_jitter(brightness, contrast, saturation)
    channels = images.shape[1]
    if channels not in (1, 3):
        raise ValueError(f"augment.colour_jitter: the images have {channels} channels, expected 1 or 3; leave it out")
    if channels == 1 and saturation:
        raise ValueError(
            f"augment.colour_jitter: saturation is {saturation}, but the images have one channel and no colour; "
            "set saturation to 0"
        )
    factors, order = drawn_factors(seeds, (brightness, contrast, saturation))
    weights = images.new_tensor(GREY if channels == 3 else (1.0,))[:, None, None]
    for turn in order.T[..., None]:
        grey = (images * weights).sum(1, keepdim=True)
        change = turn[..., None, None]
        about = torch.where(change == 1, grey.mean((2, 3), keepdim=True), torch.where(change == 2, grey, 0.0))
        factor = factors.gather(1, turn)[..., None, None].to(images)
        images = (factor * images + (1 - factor) * about).clamp_(0.0, 1.0)
    return images


def check_colour_jitter(brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0) -> None:
    """Raise ValueError if a setting is outside its range."""
    for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
        if not 0 <= value < math.inf:
            raise ValueError(f"augment.colour_jitter: {name} is {value}; expected a number not below 0")


def rotation(images: Images, seeds: Seeds, *, degrees: float, fill: float | None = None) -> Images:
    """Rotate each image about its centre by an angle uniform in [-degrees, degrees], with bilinear interpolation.

    degrees: largest angle, from 0 to 180.
    fill: value in [0, 1] of all channels at the corners that become free. None: the nearest pixel of the edge, so that
        only colours of the image appear.

    Source: torchvision's RandomRotation (bilinear), whose default `fill` is 0.
    Differs: a place between an edge pixel and the fill is their bilinear mean; torchvision weighs the pixel twice
        there.
    """
    check_rotation(degrees, fill)
    angle = drawn_angles(seeds, degrees).to(images)[:, None, None]
    h, w = images.shape[2:]
    middle, centre = (h - 1) / 2, (w - 1) / 2
    below = torch.arange(h, device=images.device).to(images)[:, None] - middle
    beside = torch.arange(w, device=images.device).to(images) - centre
    down = angle.sin() * beside + angle.cos() * below + middle
    across = angle.cos() * beside - angle.sin() * below + centre
    inner_down, inner_across = down.clamp(0, h - 1), across.clamp(0, w - 1)
    turned = _bilinear(images, inner_down, inner_across)
    if fill is None:
        return turned
    covered = (1 - (down - inner_down).abs()).clamp(min=0) * (1 - (across - inner_across).abs()).clamp(min=0)
    return torch.lerp(torch.full_like(turned, fill), turned, covered[:, None])


def check_rotation(degrees: float, fill: float | None = None) -> None:
    """Raise ValueError if a setting is outside its range."""
    if not 0 <= degrees <= 180:
        raise ValueError(f"augment.rotation: degrees is {degrees}; expected a number from 0 to 180")
    if fill is not None and not 0 <= fill <= 1:
        raise ValueError(
            f"augment.rotation: fill is {fill}; expected a number in [0, 1], or none for the edge's pixels"
        )


def random_resized_crop(
    images: Images, seeds: Seeds, *, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3)
) -> Images:
    """Cut a random window out of each image and enlarge it to the size of the image, with bilinear interpolation.

    Ten windows of random area and ratio are drawn. The first that fits is placed at random. If none fits, the largest
    allowed window in the middle is used. A window is never larger than the image, so nothing needs antialiasing.

    scale: smallest and largest share of the image's area, in (0, 1]; uniform.
    ratio: smallest and largest width / height of the window, above 0; its logarithm is uniform.

    Source: torchvision's RandomResizedCrop; Szegedy et al. 2015, Going deeper with convolutions, section 6.
    Differs: the window is cut from the stored image, which already has the size of the network's input.
    """
    check_random_resized_crop(scale, ratio)
    h, w = images.shape[2:]
    top, left, height, width = drawn_windows(seeds, h, w, scale, ratio).to(images).unbind(1)
    return _bilinear(images, _spread(top, height, h)[:, :, None], _spread(left, width, w)[:, None])


def check_random_resized_crop(scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3)) -> None:
    """Raise ValueError if a setting is outside its range."""
    for name, pair, most in (("scale", scale, 1.0), ("ratio", ratio, math.inf)):
        if len(pair) != 2 or not 0 < pair[0] <= pair[1] <= most or pair[1] == math.inf:
            limit = ", at most 1" if name == "scale" else ""
            raise ValueError(
                f"augment.random_resized_crop: {name} is {list(pair)}; expected two numbers above 0{limit}, the larger "
                "one last"
            )


def drawn_factors(seeds: Seeds, spreads: Sequence[float]) -> tuple[Float[Tensor, "n 3"], Int[Tensor, "n 3"]]:
    """Return the factors of `colour_jitter`, n 3, and the index of the change at each turn, n 3.

    seeds: one integer per image.
    spreads: for each change, the largest distance of its factor from 1, at least 0.
    """
    low = torch.tensor([max(0.0, 1.0 - spread) for spread in spreads], device=seeds.device)
    high = torch.tensor([1.0 + spread for spread in spreads], device=seeds.device)
    factors = low + (high - low) * draws.uniform(seeds, (len(spreads),))
    return factors, draws.keys(draws.fold(seeds, 0), len(spreads)).argsort(1)


def drawn_angles(seeds: Seeds, degrees: float) -> Float[Tensor, " n"]:
    """Return the angle of `rotation` for each image, in radians. Positive angles are counter-clockwise."""
    return (2 * draws.uniform(seeds, (1,))[:, 0] - 1) * math.radians(degrees)


def drawn_windows(seeds: Seeds, h: int, w: int, scale: Sequence[float], ratio: Sequence[float]) -> Float[Tensor, "n 4"]:
    """Return the window of `random_resized_crop` for each image: top, left, height and width, in whole pixels.

    h, w: height and width of the images, in pixels. The other arguments are those of `random_resized_crop`.
    """
    low, high = (math.log(bound) for bound in ratio)
    drawn = draws.uniform(seeds, (_TRIES, 2)).double()
    area = (scale[0] + (scale[1] - scale[0]) * drawn[..., 0]) * (h * w)
    shape = (low + (high - low) * drawn[..., 1]).exp()
    sides = torch.stack([(area / shape).sqrt().round(), (area * shape).sqrt().round()], 2)
    whole = torch.tensor([h, w], device=seeds.device)
    fits = ((sides > 0) & (sides <= whole)).all(2)
    first = fits.int().argmax(1)
    allowed = min(max(w / h, ratio[0]), ratio[1])
    largest = torch.tensor([min(h, round(w / allowed)), min(w, round(h * allowed))], device=seeds.device)
    sides = torch.where(fits.any(1, keepdim=True), sides[torch.arange(len(seeds), device=seeds.device), first], largest)
    free = whole - sides
    place = (draws.uniform(draws.fold(seeds, 0), (2,)).double() * (free + 1)).floor()
    place = torch.where(fits.any(1, keepdim=True), place, (free / 2).floor())
    return torch.cat([place, sides], 1)


def _spread(start: Float[Tensor, " n"], length: Float[Tensor, " n"], size: int) -> Float[Tensor, "n {size}"]:
    """Return `size` evenly spaced places over `length` pixels from `start`, clamped to the outer pixel centres."""
    length = length[:, None]
    places = (torch.arange(size, device=start.device).to(start) + 0.5) * (length / size) - 0.5
    return torch.minimum(places.clamp(min=0), length - 1) + start[:, None]


def _bilinear(images: Images, down: Float[Tensor, "n #h #w"], across: Float[Tensor, "n #h #w"]) -> Images:
    """Return values at places within the image, in pixels from the first pixel's centre. A pixel's value is exact."""
    n, c, h, w = images.shape
    flat, top, left = images.reshape(n, c, h * w), down.floor(), across.floor()
    low, right = (top + 1).clamp(max=h - 1), (left + 1).clamp(max=w - 1)

    def at(y: Tensor, x: Tensor) -> Tensor:
        index = (y.long() * w + x.long()).reshape(n, 1, h * w)
        return flat.gather(2, index.expand(n, c, h * w)).reshape(n, c, h, w)

    beside = (across - left)[:, None]
    upper, lower = (torch.lerp(at(y, left), at(y, right), beside) for y in (top, low))
    return torch.lerp(upper, lower, (down - top)[:, None])
