"""The pictures of a page as data, in `pictures.json` beside it: a page that is written without the data keeps them."""

import contextlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from efface.report.gallery import Album, Gallery, Tile, album
from efface.shown import unprintable
from efface.store.atomic import atomic_write

NAME = "pictures.json"
_ADDRESS = re.compile(r"data:image/(png|webp);base64,[A-Za-z0-9+/=]+|images/[A-Za-z0-9_.-]+\.png")


@dataclass(frozen=True)
class Pictured:
    """What a page says of its gallery, with the addresses of the pictures; see `Gallery` and `Album`.

    numbers: test row of each image. further: the other fractions. channels: of an image. in_full: whether files beside
    the page have the pictures in full size.
    """

    labels: tuple[str, ...]
    numbers: tuple[int, ...]
    why: tuple[str, ...]
    fraction: float
    further: tuple[float, ...]
    removed: str
    channels: int
    images: tuple[str, ...]
    tiles: dict[str, tuple[Tile, ...]]
    vectors: dict[str, str]
    outside: int
    in_full: bool


def kept_pictures(folder: Path, gallery: Gallery | Pictured | None) -> Pictured | None:
    """Return the pictures of a page. Write those of a gallery into the folder of the page, and them all as data."""
    if gallery is None:
        (folder / NAME).unlink(missing_ok=True)
        return None
    if isinstance(gallery, Pictured):
        return gallery
    made = album(gallery)
    shown = _pictured(gallery, made)
    for name, content in (made.files | {NAME: json.dumps(asdict(shown)).encode()}).items():
        if not (folder / name).is_file() or (folder / name).read_bytes() != content:
            with atomic_write(folder / name) as temporary:
                temporary.write_bytes(content)
    return shown


def _pictured(gallery: Gallery, made: Album) -> Pictured:
    return Pictured(
        labels=gallery.labels,
        numbers=gallery.numbers,
        why=gallery.why,
        fraction=gallery.fraction,
        further=tuple(gallery.further),
        removed=gallery.removed,
        channels=gallery.images.shape[1],
        images=tuple(made.images),
        tiles={name: tuple(tiles) for name, tiles in made.tiles.items()},
        vectors=dict(made.vectors),
        outside=made.outside,
        in_full=bool(made.files),
    )


def read_pictured(folder: Path) -> Pictured | None:
    """Return the pictures that a page in this folder had; None if they are not there, or not as efface wrote them."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        tree = json.loads((folder / NAME).read_bytes())
        tree["tiles"] = {name: tuple(_tile(*tile) for tile in tiles) for name, tiles in tree["tiles"].items()}
        for name in ("labels", "numbers", "why", "further", "images"):
            tree[name] = tuple(tree[name])
        kept = Pictured(**tree)
        if all(map(_is_address, (*kept.images, *kept.vectors.values()))) and not _odd(tree) and _fits(kept):
            return kept
    return None


def _tile(drawn: Any, masked: Any, further: Any) -> Tile:
    tile = Tile(drawn, masked, tuple(further))
    if not all(map(_is_address, filter(None, (drawn, masked, *tile.further)))):
        raise ValueError(f"{NAME}: an address is none of a picture")
    return tile


def _is_address(text: Any) -> bool:
    return isinstance(text, str) and _ADDRESS.fullmatch(text) is not None


def _odd(tree: dict[str, Any]) -> bool:
    texts = (*tree["labels"], *tree["why"], tree["removed"], *tree["tiles"], *tree["vectors"])
    numbers = (tree["fraction"], *tree["further"], *tree["numbers"], tree["channels"], tree["outside"])
    return any(unprintable(text) for text in texts) or not all(isinstance(each, int | float) for each in numbers)


def _fits(kept: Pictured) -> bool:
    count = len(kept.numbers)
    lists = (kept.labels, *([kept.images] if kept.images else []), *kept.tiles.values())
    further = {len(tile.further) for tiles in kept.tiles.values() for tile in tiles}
    return all(len(each) == count for each in lists) and further <= {0, len(kept.further)}
