"""One image file as an RGB image of 8 bits: its mode, range of values, transparency and orientation."""

import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps

White = int | float | None
"""Value that is white in files of more than 8 bits; None: judged for each file."""
BACKGROUND = (255, 255, 255, 255)
"""Colour behind a transparent image: white."""
_WHITES = {"16 bits": (65535.0,), "32 bits": (255.0, 65535.0), "float": (1.0, 255.0, 65535.0)}
"""Values that may be white in images of more than 8 bits, by kind."""
_ORIENTATION, _PHOTOMETRIC = 0x0112, 262  # of EXIF and of TIFF
_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")


class Reader:
    """Reader of image files. It remembers which value was white in the files of more than 8 bits.

    white: the value that is white in these files. None: it is judged for each file by its kind and its largest value,
        and must be the same for all files of a kind.
    """

    def __init__(self, white: White = None) -> None:
        self.white = None if white is None else float(white)
        self._judged: dict[str, tuple[float, str]] = {}

    def __call__(self, file: str, content: bytes | str | None = None) -> Image.Image:
        """Return the first picture of the file, in RGB.

        file: path of the file, which errors name.
        content: the bytes of the file or another path, if `file` is only a name; None: the file is read.

        The orientation of EXIF is applied. Transparent images are laid on white. CMYK is converted without a colour
        profile. ValueError: the file is unreadable, its mode is unknown, or it is not clear which value is white.
        """
        try:
            with Image.open(_opened(file, content)) as stored:
                packed, format_, tags = _raw_mode(stored), stored.format, dict(getattr(stored, "tag_v2", None) or {})
                stored.load()
                image = _turned(stored)
        except Exception as error:  # decoders raise many types of exceptions
            raise ValueError(f"{file}: not a readable image ({error}); replace or remove it") from error
        if image.mode == "F" or image.mode.startswith("I"):
            return self._from_numbers(file, image, packed, format_, tags)
        if ";16" in packed:
            self._check_colours(file, image)
        return _from_colours(file, image)

    def of_picture(self, name: str, image: Image.Image) -> Image.Image:
        """Return an open picture of 8 bits in RGB, turned and laid on white as a file would be. name: in errors."""
        return _from_colours(name, _turned(image))

    def _from_numbers(
        self, file: str, image: Image.Image, packed: str, format_: str | None, tags: dict[Any, Any]
    ) -> Image.Image:
        if tags.get(_PHOTOMETRIC) == 0:
            raise ValueError(f"{file}: 0 is white in this file (WhiteIsZero), expected 0 to be black; convert it")
        if "transparency" in image.info:
            raise ValueError(f"{file}: grey of 16 bits with a transparent value, expected none; convert it")
        values = np.asarray(image)
        kind = "float" if image.mode == "F" else "32 bits" if image.mode == "I" else "16 bits"
        told = 65535.0 if format_ == "PPM" else 4095.0 if packed == "I;12" else None  # what the file itself tells
        return Image.fromarray(_eight_bits(values, self._white(file, values, kind, told))).convert("RGB")

    def _white(self, file: str, values: np.ndarray, kind: str, told: float | None) -> float:
        if not np.isfinite(values).all():
            raise ValueError(f"{file}: holds NaN or infinity, expected numbers from 0; replace or remove it")
        low, high = float(values.min()), float(values.max())
        described = f"{file}: values from {low:g} to {high:g} ({kind})"
        white = told or self.white
        if low < 0 or (white is not None and high > white):
            most = "" if white is None else f" to {white:g}, which is white"
            raise ValueError(f"{described}, expected values from 0{most}; convert it to 8 bits, or change white")
        if white is not None or high == 0:
            return white or 1.0
        # A dark picture in [0, 1] is likely; a picture in [0, 255] that ends at 1 is black.
        fits = [
            candidate for candidate in _WHITES[kind] if (candidate / 2 < high or candidate == 1) and high <= candidate
        ]
        if not fits:
            wanted = " or ".join(f"{candidate:g}" for candidate in _WHITES[kind])
            raise ValueError(
                f"{described}: it is not clear which value is white, expected values of up to {wanted}; set white, "
                "such as 4095 for 12 bits in 16, or 65535 for 16 bits"
            )
        known, other = self._judged.setdefault(kind, (fits[0], file))
        if known != fits[0]:
            raise ValueError(
                f"{described}: {fits[0]:g} would be white, but {known:g} in {other}; set white to the value that is "
                "white in all files, or convert them to 8 bits"
            )
        return fits[0]

    def _check_colours(self, file: str, image: Image.Image) -> None:
        """Refuse colours of 16 bits that end below half of the range. Only the eight highest bits are read."""
        bands = image.getextrema()
        high = max(band[1] for band in (bands if isinstance(bands[0], tuple) else (bands,))[:3])
        if self.white not in (None, 65535.0) or (self.white is None and 0 < high < 128):
            raise ValueError(
                f"{file}: colours of 16 bits with values of up to {high * 256 + 255}; efface reads the eight highest "
                "bits, with 65535 as white; convert it to 8 bits, or set white: 65535 if the picture is dark"
            )


def _opened(file: str, content: bytes | str | None) -> str | io.BytesIO:
    return io.BytesIO(content) if isinstance(content, bytes) else file if content is None else content


def _from_colours(file: str, image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, BACKGROUND), over).convert("RGB")
    if image.mode not in _PLAIN:
        raise ValueError(f"{file}: mode {image.mode}, expected {', '.join(_PLAIN)}, grey or float; convert it to RGB")
    return image.convert("RGB")


def _turned(image: Image.Image) -> Image.Image:
    """Return the image as its camera was held. An EXIF block that cannot be read tells nothing."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  damaged blocks raise many types of exceptions
        return image
    return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image


def _raw_mode(image: Image.Image) -> str:
    """Return how the pixels lie in the file, such as RGB;16B; "" where the format does not tell."""
    tiles: Any = getattr(image, "tile", None)
    settings = tiles[0][3] if tiles else ""
    first = settings[0] if isinstance(settings, tuple) and settings else settings
    return first if isinstance(first, str) else ""


def _eight_bits(values: np.ndarray, white: float) -> np.ndarray:
    """Return the eight highest bits if white is 2^b - 1, else rounded shares of white."""
    if values.dtype.kind in "iu" and (white + 1) % 256 == 0:
        return (values.astype(np.int64) * 256 // int(white + 1)).astype(np.uint8)
    return np.rint(values.astype(np.float64) * (255 / white)).astype(np.uint8)
