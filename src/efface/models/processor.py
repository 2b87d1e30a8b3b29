"""What an image processor does to the colours of an image, found by running it on plain pictures."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from efface.models.normalise import Normalise, normalisation

Processed = Callable[[UInt8[Tensor, "c h w"]], Float[Tensor, "k tall wide"]]

MOST = 1e-3
"""Largest difference between the processor's numbers and those of the module that stands for it."""

_CLOSE = 1e-5
_SIDE = 32
_UNREAD = ("do_flip_channel_order", "rescale_offset", "include_top")
"""Settings, apart from mean and std, with which a processor changes colours."""


class Reordered(Normalise):
    """A normalisation whose channels come out in another order, such as blue, green, red.

    order: number of the channel that goes into each channel of the network.
    """

    order: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], order: Sequence[int]) -> None:
        super().__init__(mean, std)
        self.register_buffer("order", torch.tensor(order), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).index_select(1, self.order)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, order={self.order.tolist()}"


def as_module(processed: Processed, settings: Mapping[str, Any], channels: int) -> nn.Module:
    """Return the module that does to images in [0, 1] what the processor does to images of bytes.

    The processor must compute each channel of its output from one channel of its input, by a factor and a summand. They
    are those that its settings state, if these agree with what it does; otherwise they are found from a black picture
    and from one picture in each channel's colour. The module is compared with the processor on grey pictures, on mixed
    colours and on noise.

    channels: number of channels of the network's images.
    ValueError: the processor does something else.
    """
    try:
        stated = from_settings({key: value for key, value in settings.items() if key not in _UNREAD}, channels)
        if _difference(stated, processed, channels) < _CLOSE:
            return stated
    except ValueError:  # it states too little, and what it does decides
        pass
    layer = _found(processed, channels)
    if (most := _difference(layer, processed, channels)) > MOST:
        raise ValueError(f"is no factor and summand for each channel: the largest difference is {most:.2g}")
    return layer


def _found(processed: Processed, channels: int) -> nn.Module:
    """Return the module that agrees with the processor on black and on the channels' own colours."""
    black, *colours = [_middle(processed(_plain(row))) for row in ([0] * channels, *_unit(channels))]
    if len(black) != channels:
        raise ValueError(f"gives {len(black)} channels, the network takes {channels}")
    slopes = torch.stack(colours, 1) - black[:, None]  # channels of the network, channels of the image
    order = slopes.abs().argmax(1)
    factors = slopes.gather(1, order[:, None]).flatten()
    others = slopes.clone().scatter_(1, order[:, None], 0.0)
    if others.abs().max() > MOST or len(order.unique()) < channels or not bool((factors > 0).all()):
        raise ValueError("mixes or inverts the channels of an image")
    back = order.argsort()
    mean, std = (0.0 - black / factors)[back].tolist(), (1 / factors)[back].tolist()
    if order.tolist() == list(range(channels)):
        return normalisation(mean, std, channels)
    return Reordered(mean, std, order.tolist())


def _difference(layer: nn.Module, processed: Processed, channels: int) -> float:
    """Return the largest difference between the module and the processor on a few pictures."""
    most = 0.0
    for picture in _trials(channels):
        theirs, own = processed(picture), layer(picture[None] / 255)[0]
        if theirs.shape != own.shape:  # it resizes nevertheless, which changes no plain picture
            if bool((picture != picture[:, :1, :1]).any()):
                continue
            theirs, own = _middle(theirs), _middle(own)
            if theirs.shape != own.shape:
                return math.inf
        most = max(most, float((theirs - own).abs().max()))
    return most


def from_settings(settings: Mapping[str, Any], channels: int) -> nn.Module:
    """Return the normalisation that a processor's settings state, for a processor that cannot be run.

    ValueError: they state no mean and std, or something that only the processor itself can say.
    """
    for key in _UNREAD:
        if settings.get(key):
            raise ValueError(f"has the setting {key}, whose effect is known only if the processor can be run")
    factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
    scale = 255 * float(factor)  # of an image in [0, 1] that the processor has scaled
    if settings.get("do_normalize") is False:
        return normalisation((0.0,) * channels, (1 / scale,) * channels, channels)
    found, spread = (_each(settings.get(key), channels) for key in ("image_mean", "image_std"))
    if not found or not spread:
        raise ValueError("states no image_mean and image_std")
    if not len(found) == len(spread) == channels:
        raise ValueError(
            f"states {len(found)} numbers as image_mean and {len(spread)} as image_std, "
            f"the images have {channels} channels"
        )
    return normalisation([value / scale for value in found], [value / scale for value in spread], channels)


def stated_size(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the height and width that a processor's settings state for all images; None if they state none."""
    stated = settings.get("crop_size") if settings.get("do_center_crop") else settings.get("size")
    if isinstance(stated, int):
        return stated, stated
    if settings.get("do_resize") is False or not isinstance(stated, Mapping) or not {"height", "width"} <= set(stated):
        return None
    return int(stated["height"]), int(stated["width"])


def _each(value: Any, channels: int) -> list[float]:
    """Return one number for each channel; none if there is no number."""
    return [float(value)] * channels if isinstance(value, int | float) else list(value or [])


def _plain(colour: Sequence[int]) -> UInt8[Tensor, "c h w"]:
    return torch.tensor(colour, dtype=torch.uint8)[:, None, None].repeat(1, _SIDE, _SIDE)


def _unit(channels: int) -> list[list[int]]:
    return [[255 if place == channel else 0 for place in range(channels)] for channel in range(channels)]


def _middle(image: Float[Tensor, "c h w"]) -> Float[Tensor, " c"]:
    return image[:, image.shape[1] // 2, image.shape[2] // 2].float()


def _trials(channels: int) -> list[UInt8[Tensor, "c h w"]]:
    mixed = [(40 + 70 * channel) % 256 for channel in range(channels)]
    noise = torch.randint(0, 256, (channels, _SIDE, _SIDE), generator=torch.Generator().manual_seed(0))
    return [_plain([128] * channels), _plain(mixed), noise.to(torch.uint8)]
