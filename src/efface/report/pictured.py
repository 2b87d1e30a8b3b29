"""The pictures of a page as data, in `pictures.json` beside it: a page that is written without the data keeps them."""

import contextlib
import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from efface.base.shown import unprintable
from efface.report import beside
from efface.report.gallery import Album, Gallery, Tile, album

NAME = "pictures.json"
_EMBEDDED = re.compile(r"data:image/(png|webp);base64,[A-Za-z0-9+/=]+")
_FILE = re.compile(r"images/[A-Za-z0-9_.-]+\.png")


@dataclass(frozen=True)
class Pictured:
    """What a page says of its gallery, with the addresses of the pictures; see `Gallery` and `Album`.

    numbers: test row of each image. further: the other fractions. channels: of an image; 1 for vectors. full: the name
    of the file in full size of each of `addresses`; "" for none.
    """

    labels: tuple[str, ...]
    numbers: tuple[int, ...]
    why: tuple[str, ...]
    fraction: float
    further: tuple[float, ...]
    removed: str
    channels: int
    sums_channels: bool
    images: tuple[str, ...]
    tiles: dict[str, tuple[Tile, ...]]
    vectors: dict[str, str]
    outside: int
    full: tuple[str, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of all images and of the pictures of all tiles."""
        return _addresses(self.images, self.tiles)

    @functools.cached_property
    def whole(self) -> Mapping[str, str]:
        """The name of the file in full size by the address of a picture that has one."""
        return {address: name for address, name in zip(self.addresses, self.full, strict=True) if name}

    @property
    def shares(self) -> bool:
        """True if equal pictures have one file in full size."""
        named = [name for name in self.full if name]
        return len(set(named)) < len(named)


def kept_pictures(folder: Path, gallery: Gallery | Pictured | None) -> Pictured | None:
    """Return the pictures of a page. Write those of a gallery into the folder of the page, and them all as data."""
    if gallery is None:
        (folder / NAME).unlink(missing_ok=True)
        return None
    if isinstance(gallery, Pictured):
        return gallery
    made = album(gallery)
    shown = _pictured(gallery, made)
    beside.write(folder, made.files | {NAME: json.dumps(asdict(shown)).encode()})
    return shown


def _pictured(gallery: Gallery, made: Album) -> Pictured:
    return Pictured(
        labels=gallery.labels,
        numbers=gallery.numbers,
        why=gallery.why,
        fraction=gallery.fraction,
        further=tuple(gallery.further),
        removed=gallery.removed,
        channels=1 if gallery.is_vector else gallery.images.shape[1],
        sums_channels=gallery.sums_channels,
        images=tuple(made.images),
        tiles={name: tuple(tiles) for name, tiles in made.tiles.items()},
        vectors=dict(made.vectors),
        outside=made.outside,
        full=tuple(made.full.get(address, "") for address in _addresses(made.images, made.tiles)),
    )


def _addresses(images: Sequence[str], tiles: Mapping[str, Sequence[Tile]]) -> tuple[str, ...]:
    of_tiles = (
        each for of_method in tiles.values() for tile in of_method for each in (tile.map, tile.masked, *tile.further)
    )
    return (*images, *(each for each in of_tiles if each is not None))


def read_pictured(folder: Path) -> Pictured | None:
    """Return the pictures that a page in this folder had; None if they are not there, or not as efface wrote them.

    A file in full size that is not there any more is left out.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        tree = json.loads((folder / NAME).read_bytes())
        tree["tiles"] = {name: tuple(_tile(*tile) for tile in tiles) for name, tiles in tree["tiles"].items()}
        for name in ("labels", "numbers", "why", "further", "images", "full"):
            tree[name] = tuple(tree[name])
        kept = Pictured(**tree)
        shown = (*kept.addresses, *kept.vectors.values())
        if all(_is_picture(each, folder) for each in shown) and not _odd(tree) and _fits(kept):
            return replace(kept, full=tuple(name if _is_file(name, folder) else "" for name in kept.full))
    return None


def _tile(drawn: Any, masked: Any, further: Any) -> Tile:
    return Tile(drawn, masked, tuple(further))


def _is_picture(address: str, folder: Path) -> bool:
    return _EMBEDDED.fullmatch(address) is not None or _is_file(address, folder)


def _is_file(name: str, folder: Path) -> bool:
    return _FILE.fullmatch(name) is not None and (folder / name).is_file()


def _odd(tree: dict[str, Any]) -> bool:
    texts = (*tree["labels"], *tree["why"], tree["removed"], *tree["tiles"], *tree["vectors"])
    numbers = (
        tree["fraction"],
        *tree["further"],
        *tree["numbers"],
        tree["channels"],
        tree["outside"],
        tree["sums_channels"],
    )
    return any(unprintable(text) for text in texts) or not all(isinstance(each, int | float) for each in numbers)


def _fits(kept: Pictured) -> bool:
    count = len(kept.numbers)
    lists = (kept.labels, *([kept.images] if kept.images else []), *kept.tiles.values())
    further = {len(tile.further) for tiles in kept.tiles.values() for tile in tiles}
    return all(len(each) == count for each in lists) and further <= {0, len(kept.further)}
