"""Images, their maps and the erased images, as pictures that are embedded in the page."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

Pictures = UInt8[np.ndarray, "n c h w"] | UInt8[Tensor, "n c h w"]
Relevances = Float[np.ndarray, "n h w"] | Float[Tensor, "n h w"]

EDGE = 112  # pixels; larger pictures are averaged down: 30 methods on 8 photographs stay near 10 MB
# Anchors of the two colour maps, evenly spaced, linear between: blue-white-red, and near-black to pale yellow.
DIVERGING = ((5, 48, 97), (67, 147, 195), (247, 247, 247), (214, 96, 77), (103, 0, 31))
SEQUENTIAL = ((0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191))


@dataclass(frozen=True)
class Gallery:
    """A few images, each with the map of every method and with the image that the map erases.

    images: at most 8 images.
    labels: one line for each image: its class and the class that is explained.
    maps: maps of each method in the form that is ranked (after `post`).
    masked: for each method, the images without the most relevant part of their pixels.
    fraction: part of the pixels that is erased, in [0, 1].
    """

    images: Pictures
    labels: tuple[str, ...]
    maps: Mapping[str, Relevances]
    masked: Mapping[str, Pictures]
    fraction: float


class Tile(NamedTuple):
    """A method's map of one image and the erased image, as data URIs; None for a picture that does not exist."""

    map: str | None
    masked: str | None


def tiles(gallery: Gallery) -> tuple[list[str], dict[str, list[Tile]]]:
    """Return the images, and for each method a tile for each image."""
    nothing = [None] * len(gallery.images)
    maps = {name: [_uri(paint(one)) for one in np.asarray(batch)] for name, batch in gallery.maps.items()}
    masked = {name: [_uri(rgb(one)) for one in np.asarray(batch)] for name, batch in gallery.masked.items()}
    pairs = {
        name: [Tile(*pair) for pair in zip(maps.get(name, nothing), masked.get(name, nothing), strict=True)]
        for name in dict.fromkeys((*maps, *masked))
    }
    return [_uri(rgb(image)) for image in np.asarray(gallery.images)], pairs


def paint(
    relevance: Float[np.ndarray, "h w"], *, percentile: float = 99.0, signed: bool | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Return a map in colours.

    In a signed map, 0 is white, relevance for the class is red and relevance against it is blue. A map without negative
    values has colours from black (0) to yellow.

    percentile: percentile of the magnitudes at which the colours end, in [0, 100]. If the magnitude there is 0, the
        colours end at the largest magnitude.
    signed: True for the signed colours, False for the others; None: signed if there are negative values.
    """
    relevance = np.nan_to_num(relevance.astype(np.float64), posinf=0.0, neginf=0.0)
    magnitude = np.abs(relevance)
    scale = np.percentile(magnitude, percentile) or magnitude.max() or 1.0
    signed = bool((relevance < 0).any()) if signed is None else signed
    place = np.clip(relevance / scale, -1, 1)
    anchors = np.array(DIVERGING if signed else SEQUENTIAL, dtype=np.float64)
    position = (place + 1) / 2 if signed else place
    steps = np.linspace(0, 1, len(anchors))
    channels = [np.interp(position, steps, anchors[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def rgb(image: UInt8[np.ndarray, "c h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return an image as RGB: its first three channels, or its first channel as grey."""
    channels = image[:3] if len(image) >= 3 else np.repeat(image[:1], 3, axis=0)
    return np.ascontiguousarray(channels.transpose(1, 2, 0))


def uri(png: bytes) -> str:
    """Return the bytes of a PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _uri(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    picture = Image.fromarray(pixels)
    if max(picture.size) > EDGE:
        picture.thumbnail((EDGE, EDGE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return uri(buffer.getvalue())
