"""Pictures as images of one size, decoded once into a file that is read as a memory map."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8
from torchvision.transforms import functional as F
from tqdm import tqdm

from efface.data.decode import Reader, White
from efface.data.subset import Interpolation, check_choice
from efface.plug.shared_settings import with_settings_of
from efface.store import arrays as rows

FORMAT = 2
"""Format number in the attributes of every packed file. Images are packed again when it changes."""
Resize = int | Literal["squeeze"] | None
"""Length of the shorter side before the centre crop; "squeeze": both sides get the crop's size; None: no resizing."""


class Picture(NamedTuple):
    """One stored picture. name: what errors call it. content: its bytes, or the path of its file."""

    name: str
    content: bytes | str


Pictures = Callable[[int, int], list[Picture]]
"""Function of two numbers that returns the pictures from the first number up to the second, which is excluded."""


@dataclass(frozen=True)
class Framing:
    """How pictures become images of one size.

    size: height and width of the centre crop, in pixels.
    resize: see `Resize`.
    interpolation: how a picture is resized, always antialiased.
    white: value that is white in pictures of more than 8 bits; None: judged for each picture.
    """

    size: int
    resize: Resize
    interpolation: Interpolation = "bilinear"
    white: White = None

    def attributes(self) -> dict[str, Any]:
        """Return what a packed file says of its framing. Files from before `interpolation` are bilinear."""
        other = {} if self.interpolation == "bilinear" else {"interpolation": self.interpolation}
        return {"size": self.size, "resize": self.resize or 0, "white": float(self.white or 0)} | other

    def file_name(self, part: str) -> str:
        """Return the part of a packed file's name that tells framing and choice. part: name of the chosen rows."""
        how = "" if self.interpolation == "bilinear" else f"{self.interpolation}-"
        return f"{self.resize or 'as-is'}-{how}{self.size}-{part}.h5"


@with_settings_of(check_choice)
def check_framing(size: int = 224, resize: Resize = 256, *, white: White = None, **choice: Any) -> None:
    """Raise ValueError for settings that no pictures can meet. A `check_NAME` of several data sets is this function."""
    check_choice(size=size, **choice)
    if isinstance(resize, int) and resize < size:
        raise ValueError(
            f"resize: {resize}, expected at least size, {size}, or null for no resizing, or squeeze; change it"
        )
    if white is not None and not 0 < white < float("inf"):
        raise ValueError(f"white: {white}, expected the value that is white, above 0; change it")


def packed_images(
    path: Path, pictures: Pictures, count: int, *, digest: str, framing: Framing, reader: Reader, title: str
) -> rows.StoredArray:
    """Return the packed images: those of an earlier run if they are the same, else images that are packed now.

    pictures: they are asked for in blocks, so they need not be in memory at once.
    count: number of pictures.
    digest: of what the pictures are; with another digest they are packed again.
    reader: reader of all pictures of the data set, with the `white` of the framing.
    title: what the bar of progress calls the pictures.
    """
    attributes = {"format": FORMAT, "files": digest, "count": count} | framing.attributes()
    known = rows.packed(path, "images", attributes)
    if known is not None:
        return known
    shape = (count, 3, framing.size, framing.size)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError("no write permission")
        return rows.pack(path, "images", shape, _decode(pictures, count, framing, reader, title), attributes)
    except OSError as error:
        raise ValueError(f"{path}: the images cannot be packed there ({error}); set pack to another folder") from error


def _decode(
    pictures: Pictures, count: int, framing: Framing, reader: Reader, title: str
) -> Iterator[UInt8[np.ndarray, "b 3 h w"]]:
    """Yield the images in blocks, decoded by one thread for each core: decoders and resizing release Python's lock."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS
    block = 32 * workers
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=count, desc=f"packing {title}", unit="image", disable=None) as bar,
    ):
        for first in range(0, count, block):
            some = pictures(first, min(first + block, count))
            yield np.stack(list(pool.map(partial(_image, framing=framing, reader=reader), some)))
            bar.update(len(some))


def _image(picture: Picture, framing: Framing, reader: Reader) -> UInt8[np.ndarray, "3 h w"]:
    size, resize = framing.size, framing.resize
    image = reader(*picture)
    if resize is not None:
        way = F.InterpolationMode(framing.interpolation)
        image = F.resize(image, [size, size] if resize == "squeeze" else resize, way)
    if min(image.size) < size:
        raise ValueError(
            f"{picture.name}: {image.width}x{image.height} pixels, expected at least {size}x{size}; set resize"
        )
    return np.asarray(F.center_crop(image, size)).transpose(2, 0, 1)
