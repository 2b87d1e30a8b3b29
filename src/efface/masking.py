"""Which pixels go: a map becomes ranks, ranks become a mask, a mask and an imputer become an erased image."""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from efface import draws
from efface.types import Images, Imputer, Maps, Mask, Order, Ranks, Seeds, StoredImages, Unit


def rank(maps: Float[Tensor, "n *units"], seeds: Seeds) -> Int[Tensor, "n *units"]:
    """Rank every image's units by relevance, 0 = most relevant; equal values by a shuffle of the image's seed.

    By position, ties would be erased as a fixed block of rows, whatever the method says (constant maps, the zeros of
    a ReLU'd map). NaN, should there be any, come first and tie. int16 where the units fit, else int32.
    """
    flat = maps.flatten(1)
    order = _descending(flat)
    values = flat.gather(1, order)
    tied = (values[:, 1:] == values[:, :-1]).any(1)
    tied |= values[:, 1:2].isnan().any(1)  # NaN come first and equal nothing: two of them tie as well
    tied = tied.nonzero().flatten()
    if len(tied):
        shuffle = draws.keys(seeds[tied], flat.shape[1]).argsort(dim=1)
        ordered = flat[tied].gather(1, shuffle).argsort(dim=1, descending=True, stable=True)
        order[tied] = shuffle.gather(1, ordered)
    dtype = torch.int16 if flat.shape[1] <= torch.iinfo(torch.int16).max else torch.int32
    places = torch.arange(flat.shape[1], dtype=dtype, device=maps.device).expand_as(order)
    return torch.empty_like(order, dtype=dtype).scatter_(1, order, places).reshape(maps.shape)


def count(fraction: float, units: int) -> int:
    """How many of the units a fraction removes: floor(f * units + 1e-6), so 0 removes none and 1 all."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction}, expected a number from 0 to 1")
    return math.floor(fraction * units + 1e-6)


def removed(ranks: Ranks, fraction: float, order: Order, *, grouped: bool = False) -> Mask:
    """Exactly `count` units of each image: the most or the least relevant ones.

    The two orders are complements: `most_first` at f and `least_first` at 1 - f split the units in two.

    grouped: pixels that share a rank are one unit; an image has as many units as it has ranks.
    """
    if grouped:
        units = ranks.flatten(1).amax(1).long() + 1
        gone = torch.floor(fraction * units.double() + 1e-6).long()[:, None, None]
        return ranks < gone if order == "most_first" else ranks >= units[:, None, None] - gone
    whole = math.prod(ranks.shape[1:])
    first = count(fraction, whole)
    return ranks < first if order == "most_first" else ranks >= whole - first


def erase(images: Images, mask: Mask, imputer: Imputer) -> Images:
    """Put the imputer's values where the mask is True; every kept value stays as it was, bit for bit."""
    if not _any(mask):
        return images
    where = mask[:, None] if mask.ndim == images.ndim - 1 else mask
    return torch.where(where, imputer(images, mask), images)


def erase_stored(stored: StoredImages, images: Images, mask: Mask, imputer: Imputer) -> StoredImages:
    """`erase` and `to_stored` in one: the same bits, for kept values are in 8 bits already.

    images: `stored` as numbers in [0, 1], for the imputer.
    """
    if not _any(mask):
        return stored
    fill = imputer(images, mask)
    once = [slice(0, 1) if stride == 0 else slice(None) for stride in fill.stride()]  # one colour is rounded once
    where = (mask[:, None] if mask.ndim == stored.ndim - 1 else mask).view(torch.uint8).neg()  # 255 where True
    # Measured on a CPU: a twentieth of what torch.where takes.
    return (stored ^ to_stored(fill[tuple(once)])).bitwise_and_(where).bitwise_xor_(stored)


def pad(images: Images, width: int, imputer: Imputer) -> Float[Tensor, "n c height width"]:
    """A border of removed pixels, so that a crop shows nothing that erasing would not show."""
    if width == 0:
        return images
    larger = torch.nn.functional.pad(images, (width,) * 4, mode="replicate")
    border = torch.ones(larger.shape[0], *larger.shape[2:], dtype=torch.bool, device=images.device)
    border[:, width:-width, width:-width] = False
    return erase(larger, border, imputer)


def for_unit(maps: Maps, unit: Unit, channels: int) -> Float[Tensor, "n h w"] | Float[Tensor, "n {channels} h w"]:
    """The maps as the unit ranks them; ValueError where their channels do not fit it.

    Where features are ranked, a map without channels gives all channels of a pixel its value; such ties are shuffled.
    """
    if unit == "pixel" and maps.ndim == 4:
        if maps.shape[1] != 1:
            raise ValueError(
                f"maps have {maps.shape[1]} channels after 'post', but unit 'pixel' ranks one value a pixel; "
                "end 'post' with efface.post.channel_sum or channel_max, or set unit: feature"
            )
        return maps[:, 0]
    if unit == "feature":
        whole = maps[:, None] if maps.ndim == 3 else maps
        if whole.shape[1] not in (1, channels):
            raise ValueError(
                f"maps have {whole.shape[1]} channels after 'post', but unit 'feature' ranks {channels} of each pixel; "
                "return a map for each channel of the image, or one for all of them"
            )
        return whole.expand(-1, channels, -1, -1)
    return maps


def to_float(stored: StoredImages) -> Images:
    """8-bit images as numbers in [0, 1]."""
    return stored.float().div_(255)


def to_stored(images: Tensor) -> StoredImages:
    """Images as they are kept: rounded to 8 bits, so a retraining sees erased images in the precision of whole ones."""
    return images.mul(255).round_().clamp_(0, 255).byte()


def _descending(flat: Float[Tensor, "n units"]) -> Int[Tensor, "n units"]:
    """Where each row's values stand from the largest to the least, NaN first; equal ones in any order.

    Measured on a CPU: NumPy's sort takes a third to two thirds of the time of torch's.
    """
    if flat.device.type != "cpu" or flat.dtype not in (torch.float32, torch.float64) or flat.isnan().any():
        return flat.argsort(dim=1, descending=True)
    return torch.from_numpy(np.argsort(-flat.numpy(force=True), axis=1))


def _any(mask: Mask) -> bool:
    """Whether something is True; as bytes, which a CPU finds out in a twentieth of the time."""
    return bool(mask.view(torch.uint8).any())
