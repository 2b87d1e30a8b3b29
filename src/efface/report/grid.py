"""Grids of pictures with a line for each kind: one PNG of the whole grid, and one of each line."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

EDGE = 96  # pixels: smaller pictures are enlarged by a whole factor to about this, larger ones averaged down
GAP = 4
_TEXT, _INK, _SOFT, _PAPER = 13, (24, 26, 30), (96, 100, 108), (255, 255, 255)
_MADE_FROM = "efface"
FULL = "full"
"""Folder of the pictures in full size, within that of the others."""

Picture = UInt8[np.ndarray, "h w 3"]


class PictureLine(NamedTuple):
    """Pictures of one kind, one for each column, all of the same size.

    key: name of the line's own file, without suffix.
    label: text before the line.
    pictures: the pictures.
    """

    key: str
    label: str
    pictures: Sequence[Picture]


def grid(
    lines: Sequence[PictureLine], columns: Sequence[str], made_from: str, *, names: Sequence[str] = ()
) -> dict[str, bytes]:
    """Return PNG files by name.

    `grid.png` has all lines, labels and column headings. `KEY.png` has the pictures of a line. `full/NAME-KEY.png` is
    one picture in its own size.

    The files have the colours of the pictures, without a change of brightness.

    lines: the lines of the grid.
    columns: a heading for each column.
    names: the name of each column in files; default: 0, 1, ...
    made_from: text that is stored in each file, see `read_made_from`.
    """
    names = names or [str(place) for place in range(len(columns))]
    sized = [(line, [_sized(picture) for picture in line.pictures]) for line in lines]
    files = {"grid.png": _png(_sheet(sized, columns), made_from)}
    files |= {f"{line.key}.png": _png(_strip(pictures), made_from) for line, pictures in sized}
    whole = ((line, place, pixels) for line in lines for place, pixels in enumerate(line.pictures))
    return files | {
        f"{FULL}/{names[place]}-{line.key}.png": _png(Image.fromarray(pixels), made_from)
        for line, place, pixels in whole
    }


def read_made_from(png: bytes) -> str:
    """Return the stored text of the inputs of a picture; "" if there is none, or if the bytes are no picture."""
    try:
        with Image.open(io.BytesIO(png)) as picture:
            return str(picture.info.get(_MADE_FROM, ""))
    except OSError:
        return ""


def _sheet(sized: Sequence[tuple[PictureLine, list[Image.Image]]], columns: Sequence[str]) -> Image.Image:
    font = ImageFont.load_default(_TEXT)
    widest = max((picture.width for _, pictures in sized for picture in pictures), default=EDGE)
    headings = [_wrapped(text, font, widest) for text in columns]
    left = max((round(font.getlength(line.label)) for line, _ in sized), default=0) + 3 * GAP
    top = (_TEXT + 3) * max((len(words) for words in headings), default=0) + 2 * GAP
    heights = [max((picture.height for picture in pictures), default=EDGE) + GAP for _, pictures in sized]
    whole = Image.new("RGB", (left + len(columns) * (widest + GAP), top + sum(heights)), _PAPER)
    draw = ImageDraw.Draw(whole)
    for column, words in enumerate(headings):
        for at, word in enumerate(words):
            draw.text((left + column * (widest + GAP), GAP + at * (_TEXT + 3)), word, _SOFT, font)
    for (line, pictures), height in zip(sized, heights, strict=True):
        draw.text((left - 2 * GAP, top + height // 2), line.label, _INK, font, anchor="rm")
        for column, picture in enumerate(pictures):
            whole.paste(picture, (left + column * (widest + GAP), top))
        top += height
    return whole


def _strip(pictures: Sequence[Image.Image]) -> Image.Image:
    width, height = pictures[0].size
    whole = Image.new("RGB", (len(pictures) * (width + GAP) - GAP, height), _PAPER)
    for column, picture in enumerate(pictures):
        whole.paste(picture, (column * (width + GAP), 0))
    return whole


def _sized(pixels: Picture) -> Image.Image:
    picture = Image.fromarray(pixels)
    longest = max(picture.size)
    if longest > EDGE:
        picture.thumbnail((EDGE, EDGE), Image.Resampling.BOX)
        return picture
    factor = max(1, EDGE // longest)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Return the words in lines of at most this width. A wider word has its own line."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _png(picture: Image.Image, made_from: str) -> bytes:
    metadata, buffer = PngInfo(), io.BytesIO()
    metadata.add_text(_MADE_FROM, made_from)
    picture.save(buffer, format="PNG", pnginfo=metadata)
    return buffer.getvalue()
