"""Images, their maps and the erased images, as pictures that are embedded in the page."""

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

Pictures = UInt8[np.ndarray, "n c h w"] | UInt8[Tensor, "n c h w"]
Relevances = (
    Float[np.ndarray, "n h w"] | Float[Tensor, "n h w"] | Float[np.ndarray, "n c h w"] | Float[Tensor, "n c h w"]
)

EDGE = 224  # pixels of an embedded picture; larger ones are averaged down
SMALL = 112  # pixels up to which a picture is stored without loss
BUDGET = 5_000_000
"""Characters of the embedded pictures. Those beyond it are files beside the page."""
FOLDER = "images"
# Anchors of the two colour maps, evenly spaced, linear between: blue-white-red, and near-black to pale yellow.
DIVERGING = ((5, 48, 97), (67, 147, 195), (247, 247, 247), (214, 96, 77), (103, 0, 31))
SEQUENTIAL = ((0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191))


@dataclass(frozen=True)
class Gallery:
    """A few images, each with the map of every method and with the images that the map erases.

    images: the images.
    labels: one line for each image: its class and the class that is explained.
    maps: maps of each method in the form that is ranked (after `post`). Only maps of vectors keep their channels.
    masked: for each method, the images without the most relevant part of their units.
    fraction: part of the units that is erased in `masked`, in [0, 1].
    further: for other fractions, the images that each method erases.
    rows: test rows of the images; empty: 0, 1, ...
    why: why each image is shown.
    removed: what is erased, such as "pixels" or "patches".
    """

    images: Pictures
    labels: tuple[str, ...]
    maps: Mapping[str, Relevances]
    masked: Mapping[str, Pictures]
    fraction: float
    further: Mapping[float, Mapping[str, Pictures]] = field(default_factory=dict)
    rows: tuple[int, ...] = ()
    why: tuple[str, ...] = ()
    removed: str = "pixels"

    @property
    def numbers(self) -> tuple[int, ...]:
        """The test row of each image."""
        return self.rows or tuple(range(len(self.images)))

    @property
    def is_vector(self) -> bool:
        """True if an image is a row of numbers, see `is_vector`."""
        return is_vector(self.images.shape[1:])

    @property
    def sums_channels(self) -> bool:
        """True if a map has fewer numbers than an image."""
        return any(math.prod(maps.shape) < math.prod(self.images.shape) for maps in self.maps.values())


def is_vector(shape: Sequence[int]) -> bool:
    """Return whether images of shape c h w are rows of numbers: one pixel high or wide, or one pixel of channels."""
    c, h, w = shape
    return min(h, w) == 1 < c * h * w


class Tile(NamedTuple):
    """Addresses of a method's map of one image and of the erased image; None for a picture that does not exist.

    further: the image erased at each other fraction.
    """

    map: str | None
    masked: str | None
    further: tuple[str, ...] = ()


@dataclass
class Album:
    """The pictures of a page.

    images: address of each image. tiles: for each method a tile for each image. vectors: for data that are vectors, one
    picture of all images, and one of the maps of each method, with a line for each image. files: pictures in full size
    by their name. outside: number of pictures that are not embedded. full: for each address of a picture with a file in
    full size, the name of this file.
    """

    images: list[str] = field(default_factory=list)
    tiles: dict[str, list[Tile]] = field(default_factory=dict)
    vectors: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    outside: int = 0
    full: dict[str, str] = field(default_factory=dict, repr=False)
    _spent: int = 0
    _taken: set[str] = field(default_factory=set, repr=False)

    def add(self, pixels: UInt8[np.ndarray, "h w 3"], name: str) -> str:
        """Return the address of a picture: embedded, or a file beside the page. Equal pictures share a file.

        name: of the file, without suffix.
        """
        picture = Image.fromarray(pixels)
        if max(picture.size) <= SMALL:
            return uri(encoded(picture, "PNG"))
        content = encoded(picture, "PNG")
        path = next((path for path, file in self.files.items() if file == content), "")
        path = path or f"{FOLDER}/{self._free(name)}.png"
        self.files[path] = content
        if max(picture.size) > EDGE:
            picture.thumbnail((EDGE, EDGE), Image.Resampling.BOX)
        text = uri(encoded(picture, "WEBP", quality=88), "webp")
        if self._spent + len(text) > BUDGET:
            self.outside += 1
            text = path
        else:
            self._spent += len(text)
        self.full[text] = path
        return text

    def _free(self, name: str) -> str:
        slug = re.sub(r"[^a-zA-Z0-9_.-]+", "-", name)[:100].strip("-.") or "x"
        free = next(each for each in (slug, *(f"{slug}-{i}" for i in range(2, 10_000))) if each not in self._taken)
        self._taken.add(free)
        return free


def album(gallery: Gallery) -> Album:
    """Return the pictures of a gallery: the images first, then method by method, until the budget is spent."""
    made, rows = Album(), gallery.numbers
    images = np.asarray(gallery.images)
    if gallery.is_vector:
        made.vectors[""] = _heat_map(rgb(images.reshape(1, len(images), -1)))
        for name, batch in gallery.maps.items():
            made.vectors[name] = _heat_map(paint(np.asarray(batch).reshape(len(images), -1)))
        return made
    made.images = [made.add(rgb(image), f"{row}-image") for row, image in zip(rows, images, strict=True)]
    for name in dict.fromkeys((*gallery.maps, *gallery.masked)):
        maps = [made.add(paint(one), f"{row}-{name}-map") for row, one in _each(gallery.maps, name, rows)]
        masked = [
            made.add(rgb(one), f"{row}-{name}-without-{100 * gallery.fraction:.4g}-percent")
            for row, one in _each(gallery.masked, name, rows)
        ]
        further = [
            [
                made.add(rgb(one), f"{row}-{name}-without-{100 * at:.4g}-percent")
                for row, one in _each(erased, name, rows)
            ]
            for at, erased in gallery.further.items()
            if name in erased
        ]
        made.tiles[name] = [
            Tile(
                maps[i] if maps else None,
                masked[i] if masked else None,
                tuple(of_fraction[i] for of_fraction in further),
            )
            for i in range(len(rows))
        ]
    return made


def _each(pictures: Mapping[str, Any], name: str, rows: Sequence[int]) -> list[tuple[int, np.ndarray]]:
    return list(zip(rows, np.asarray(pictures[name]), strict=True)) if name in pictures else []


def _heat_map(pixels: UInt8[np.ndarray, "rows coordinates 3"]) -> str:
    """Return the address of a picture of numbers, each 8 pixels high and wide, or less wide if there are many.

    It is stored without loss.
    """
    wide = max(1, min(8, 1000 // pixels.shape[1]))
    return uri(encoded(Image.fromarray(pixels.repeat(8, axis=0).repeat(wide, axis=1)), "PNG"))


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


def strip(pixels: UInt8[np.ndarray, "1 coordinates 3"]) -> UInt8[np.ndarray, "h coordinates 3"]:
    """Return the picture of one row of numbers, an eighth as high as wide."""
    return pixels.repeat(max(1, pixels.shape[1] // 8), axis=0)


def rgb(image: UInt8[np.ndarray, "c h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return an image as RGB: its first three channels, or its first channel as grey."""
    channels = image[:3] if len(image) >= 3 else np.repeat(image[:1], 3, axis=0)
    return np.ascontiguousarray(channels.transpose(1, 2, 0))


def uri(content: bytes, kind: str = "png") -> str:
    """Return the bytes of a picture as a data URI."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()


def encoded(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    """Return a picture as the bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **settings)
    return buffer.getvalue()
