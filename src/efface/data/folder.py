"""Trees of images with a folder for each class. They are decoded once into a file that is read as a memory map."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset
from torchvision.transforms import functional as F
from tqdm import tqdm

from efface.data.subset import balanced, stratified
from efface.store import arrays as rows
from efface.types import Split

FORMAT = 1
"""Format number in the attributes of every packed file. Images are packed again when it changes."""
Resize = int | Literal["squeeze"] | None
"""Length of the shorter side before the centre crop; "squeeze": both sides get the crop's size; None: no resizing."""


@dataclass(frozen=True)
class _Listing:
    """The chosen images of one split, in ImageFolder's order."""

    folder: Path
    files: tuple[str, ...]
    targets: torch.Tensor
    classes: tuple[str, ...]


def image_folder(
    *,
    root: str,
    size: int = 224,
    resize: Resize = 256,
    train: str | None = None,
    test: str | None = None,
    pack: str | None = None,
    limit: int | None = None,
    test_limit: int | None = None,
    validation: float = 0.0,
    seed: int = 0,
) -> dict[str, Split]:
    """RGB images of a tree `root/<split>/<class>/*`, resized, cropped, and packed once into contiguous HDF5.

    A packed file is used again while the images have the same names, sizes and times and the packed rows have the same
    digest. Only the chosen images are decoded. Classes are sorted by name, as in torchvision's ImageFolder.

    root: folder of the tree. To use no training split, give the test folder as the root.
    size: height and width of the centre crop, in pixels.
    resize: length of the shorter side before the crop (bilinear, antialiased), in pixels; None: no resizing; squeeze:
        both sides are resized to `size` without a crop, which changes the proportions of the objects.
    train: folder of the training split in `root`; None: `train` if it exists, else there is no training split.
    test: folder of the test split in `root`; None: `val` or `test`, or `root` itself if it has no folder of a split.
    pack: folder of the packed files; None: `<root>.packed`, beside the root. An image of 224x224 takes 150 kB.
    limit: number of training images, a balanced choice; None takes all.
    test_limit: number of test images, a balanced choice; None takes all.
    validation: share of the training images that is held out, stratified, in [0, 1).
    seed: seeds both choices and the validation images.
    """
    return grouped_folder(
        root=root,
        groups=lambda _folder, names: {name: [name] for name in names},
        size=size,
        resize=resize,
        train=train,
        test=test,
        pack=pack,
        limit=limit,
        test_limit=test_limit,
        validation=validation,
        seed=seed,
    )


Groups = Callable[[Path, list[str]], Mapping[str, Sequence[str]]]
"""Function of a split's folder and its sorted class folders. It returns the classes in order, each with its folders."""


def grouped_folder(
    *,
    root: str,
    groups: Groups,
    size: int,
    resize: Resize,
    train: str | None,
    test: str | None,
    pack: str | None,
    limit: int | None,
    test_limit: int | None,
    validation: float,
    seed: int,
    title: str = "",
) -> dict[str, Split]:
    """Return images as `image_folder` does. Each class consists of some of the tree's folders; others are ignored.

    groups: function that assigns folders to classes.
    title: prefix of the names of the packed files, so that another choice from the same tree has its own files.

    The other settings are those of `image_folder`.
    """
    if isinstance(resize, int) and resize < size:
        raise ValueError(
            f"resize: {resize}, expected at least size, {size}, or null for no resizing, or squeeze; change it"
        )
    place = Path(root).expanduser().absolute()
    named = _names(place, train, test)
    listings = {split: _list(place / name, groups) for split, name in named.items()}
    _agree(listings)
    made = {}
    for split, every in listings.items():
        if split == "train":
            chosen = balanced(every.targets, limit, seed, setting="limit", least=len(every.classes))
        else:
            chosen = balanced(every.targets, test_limit, seed, setting="test_limit")
        listing = _Listing(
            every.folder, tuple(every.files[i] for i in chosen.tolist()), every.targets[chosen], every.classes
        )
        held_out = stratified(listing.targets, validation, seed) if split == "train" else None
        store = Path(pack).expanduser() if pack else place.with_name(place.name + ".packed")
        part = "all" if len(chosen) == len(every.files) else f"{len(chosen)}-seed{seed}"
        images = _rows(
            store / f"{title}{every.folder.name}-{resize or 'as-is'}-{size}-{part}.h5", listing, size, resize
        )
        made[split] = Split(images, listing.targets, listing.classes, validation=held_out)
    return made


def _names(root: Path, train: str | None, test: str | None) -> dict[str, str]:
    """Return the folder of each split, from the settings and the folders that exist."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder, expected a tree of images; change root")
    for setting, name in (("train", train), ("test", test)):
        if name is not None and not (root / name).is_dir():
            raise FileNotFoundError(
                f"{root / name}: no such folder, expected a folder for each class; change {setting}"
            )
    if train is None and (root / "train").is_dir():
        train = "train"
    if test is None:
        found = [name for name in ("val", "test") if (root / name).is_dir() and name != train]
        if len(found) == 2:
            raise ValueError(f"{root}: holds both val and test, expected one of them; set test to the folder to use")
        if not found and train is not None:
            raise FileNotFoundError(f"{root}: holds neither val nor test; set test to the folder of the test split")
        test = found[0] if found else "."
    return {"test": test} if train is None else {"train": train, "test": test}


def _list(folder: Path, groups: Groups) -> _Listing:
    try:
        names, _ = find_classes(str(folder))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{folder}: holds no folders, expected one for each class, with its images") from error
    chosen = groups(folder, names)
    folders = [name for each in chosen.values() for name in each]
    found = make_dataset(str(folder), {name: i for i, name in enumerate(folders)}, IMG_EXTENSIONS, allow_empty=True)
    places = torch.tensor([place for _, place in found], dtype=torch.int64)
    empty = [folders[i] for i in (places.bincount(minlength=len(folders)) == 0).nonzero().flatten()]
    if empty:
        raise ValueError(
            f"{folder}: {len(empty)} of {len(folders)} class folders hold no image ({', '.join(empty[:5])}), "
            f"expected files named {', '.join(IMG_EXTENSIONS)}; remove or fill them"
        )
    targets = torch.tensor([number for number, each in enumerate(chosen.values()) for _ in each])[places]
    return _Listing(folder, tuple(file for file, _ in found), targets, tuple(chosen))


def _agree(listings: dict[str, _Listing]) -> None:
    if len(listings) == 1:
        return
    train, test = listings["train"], listings["test"]
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(
            f"{test.folder}: its {len(test.classes)} classes are not the {len(train.classes)} of {train.folder} "
            f"(only one of the two has {', '.join(odd[:5])}); give both the same class folders"
        )


def _rows(path: Path, listing: _Listing, size: int, resize: Resize) -> rows.StoredArray:
    """Return the packed images: those of an earlier run if they are the same, else images that are packed now."""
    attributes: dict[str, Any] = {
        "format": FORMAT,
        "files": _digest(listing),
        "size": size,
        "resize": resize or 0,
        "count": len(listing.files),
    }
    known = rows.packed(path, "images", attributes)
    if known is not None:
        return known
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError("no write permission")
        return rows.pack(
            path, "images", (len(listing.files), 3, size, size), _decode(listing, size, resize), attributes
        )
    except OSError as error:
        raise ValueError(f"{path}: the images cannot be packed there ({error}); set pack to another folder") from error


def _digest(listing: _Listing) -> str:
    """Return the SHA-256 of each file's name in the tree, size and time, 16 digits."""
    whole, start = hashlib.sha256(), len(str(listing.folder))
    for file in listing.files:
        try:
            state = os.stat(file)  # noqa: PTH116  a Path for each of a million files takes minutes
        except OSError as error:
            raise FileNotFoundError(
                f"{file}: listed but not readable ({error.strerror}); restore or remove it"
            ) from error
        whole.update(f"{file[start:]}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return whole.hexdigest()[:16]


def _decode(listing: _Listing, size: int, resize: Resize) -> Iterator[UInt8[np.ndarray, "b 3 h w"]]:
    """Yield the images in blocks, decoded by one thread for each core: decoders and resizing release Python's lock."""
    workers = len(os.sched_getaffinity(0))
    block = 32 * workers
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(listing.files), desc=f"packing {listing.folder}", unit="image", disable=None) as bar,
    ):
        for first in range(0, len(listing.files), block):
            files = listing.files[first : first + block]
            yield np.stack(list(pool.map(partial(_image, size=size, resize=resize), files)))
            bar.update(len(files))


def _image(file: str, size: int, resize: Resize) -> UInt8[np.ndarray, "3 h w"]:
    try:
        with Image.open(file) as stored:
            image = _rgb(stored)
    except Exception as error:  # decoders raise many types of exceptions
        raise ValueError(f"{file}: not a readable image ({error}); replace or remove it") from error
    if resize is not None:
        image = F.resize(image, [size, size] if resize == "squeeze" else resize)
    if min(image.size) < size:
        raise ValueError(f"{file}: {image.width}x{image.height} pixels, expected at least {size}x{size}; set resize")
    return np.asarray(F.center_crop(image, size)).transpose(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey: Pillow would clip the values at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P":  # a direct conversion to RGB makes Pillow warn about a palette with transparency
        image = image.convert("RGBA")
    return image.convert("RGB")
