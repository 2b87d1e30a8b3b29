"""Ranks of the units of an image by relevance, and masks of the removed units."""

import math
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from efface.base import draws
from efface.base.shown import shown
from efface.base.types import Maps, Mask, Order, Ranks, Seeds, Unit


def rank(maps: Float[Tensor, "n *units"], seeds: Seeds) -> Int[Tensor, "n *units"]:
    """Rank the units of every image by relevance, 0 = most relevant. Ties follow a shuffle from the image's seed.

    Breaking ties by position would erase a fixed block of rows for constant maps or for the zeros of a ReLU'd map. NaN
    values come first and tie. The result is int16 if the number of units fits, otherwise int32.
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
    """Return the number of units that a fraction removes. 0 removes none and 1 removes all.

    Formula: floor(f * units + 1e-6).
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction}, expected a number from 0 to 1")
    return math.floor(fraction * units + 1e-6)


def removed(ranks: Ranks, fraction: float, order: Order, *, grouped: bool = False) -> Mask:
    """Return a mask of exactly `count` units of each image: the most or the least relevant ones.

    The two orders are complements: `most_first` at f and `least_first` at 1 - f split the units in two.

    grouped: True if pixels that share a rank are one unit. An image then has as many units as ranks.

    ValueError: the order is unknown, or the fraction is none.
    """
    if order not in get_args(Order):
        raise ValueError(f"order is {shown(order)}; expected {' or '.join(get_args(Order))}")
    if grouped:
        units = ranks.flatten(1).amax(1).long() + 1
        gone = torch.floor(fraction * units.double() + 1e-6).long()[:, None, None]
        return ranks < gone if order == "most_first" else ranks >= units[:, None, None] - gone
    whole = math.prod(ranks.shape[1:])
    first = count(fraction, whole)
    return ranks < first if order == "most_first" else ranks >= whole - first


def for_unit(maps: Maps, unit: Unit, channels: int) -> Float[Tensor, "n h w"] | Float[Tensor, "n {channels} h w"]:
    """Return the maps in the shape that the unit ranks. ValueError: the channels do not fit the unit.

    For features, a map without channels gives its value to all channels of a pixel. These ties are shuffled.
    """
    if unit == "pixel" and maps.ndim == 4:
        if maps.shape[1] != 1:
            raise ValueError(
                f"maps have {maps.shape[1]} channels after 'post', but unit 'pixel' ranks one value a pixel; "
                "end 'post' with channel_sum or channel_max, or set unit: feature"
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


def _descending(flat: Float[Tensor, "n units"]) -> Int[Tensor, "n units"]:
    """Return the positions of the values of each row in descending order, NaN first. Equal values have any order.

    Measured on a CPU: NumPy's sort takes a third to two thirds of the time of torch's sort.
    """
    if flat.device.type != "cpu" or flat.dtype not in (torch.float32, torch.float64) or flat.isnan().any():
        return flat.argsort(dim=1, descending=True)
    return torch.from_numpy(np.argsort(-flat.numpy(force=True), axis=1))
