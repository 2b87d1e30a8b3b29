"""Trees of images with a folder for each class. They are decoded once into a file that is read as a memory map."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torchvision.transforms import functional as F
from tqdm import tqdm

from efface.data.decode import Reader, White
from efface.data.numbering import Classes, names_by_number, numbers
from efface.data.subset import balanced, check_choice, stratified
from efface.data.tree import Groups, Listing, listing, split_folders
from efface.store import arrays as rows
from efface.types import Split

FORMAT = 2
"""Format number in the attributes of every packed file. Images are packed again when it changes."""
Resize = int | Literal["squeeze"] | None
"""Length of the shorter side before the centre crop; "squeeze": both sides get the crop's size; None: no resizing."""


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
    classes: Classes = None,
    white: White = None,
) -> dict[str, Split]:
    """RGB images of a tree `root/<split>/<class>/*`, resized, cropped, and packed once into contiguous HDF5.

    A packed file is used again while the images have the same names, sizes and times and the packed rows have the same
    digest. Only the chosen images are decoded. Classes are sorted by name, as in torchvision's ImageFolder. Hidden
    folders, files without the ending of an image, and links that lead back are left out; `Split.notes` counts them.

    root: folder of the tree. To use no training split, give the test folder as the root.
    size: height and width of the centre crop, in pixels.
    resize: length of the shorter side before the crop (bilinear, antialiased), in pixels; None: no resizing; squeeze:
        both sides are resized to `size` without a crop, which changes the proportions of the objects.
    train: folder of the training split in `root`; None: `train` in any case if it exists, else there is none.
    test: folder of the test split in `root`; None: `val` or `test` in any case, or `root` itself if it has no folder of
        a split. `.` is the root itself.
    pack: folder of the packed files; None: `<root>.packed`, beside the root. An image of 224x224 takes 150 kB.
    limit: number of training images, a balanced choice; None takes all.
    test_limit: number of test images, a balanced choice; None takes all.
    validation: share of the training images that is held out, stratified, in [0, 1).
    seed: seeds both choices and the validation images.
    classes: the network's number of each class folder, for a network that was trained elsewhere. A list of numbers, one
        for each folder in sorted order; a list of the network's classes in the order of its outputs; numbers by folder;
        a file of these; or `imagenet` for folders named by WordNet ids. None: 0, 1, 2, ...
    white: value that is white in images of more than 8 bits, such as 4095 for 12 bits in 16. None: 65535, or for 32
        bits and floats 1, 255 or 65535, judged by the largest value. Files for which this is not clear are refused.

    Differs: ImageFolder ignores the orientation of EXIF and drops transparency. Here the orientation is applied, and
        transparent images are laid on white.
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
        classes=classes,
        white=white,
    )


def check_image_folder(
    size: int = 224,
    resize: Resize = 256,
    limit: int | None = None,
    test_limit: int | None = None,
    validation: float = 0.0,
    white: White = None,
) -> None:
    """Raise ValueError for settings that no tree can meet."""
    check_choice(size=size, limit=limit, test_limit=test_limit, validation=validation)
    if isinstance(resize, int) and resize < size:
        raise ValueError(
            f"resize: {resize}, expected at least size, {size}, or null for no resizing, or squeeze; change it"
        )
    if white is not None and not 0 < white < float("inf"):
        raise ValueError(f"white: {white}, expected the value that is white, above 0; change it")


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
    classes: Classes = None,
    white: White = None,
    title: str = "",
) -> dict[str, Split]:
    """Return images as `image_folder` does. Each class consists of some of the tree's folders; others are ignored.

    groups: function that assigns folders to classes.
    title: prefix of the names of the packed files, so that another choice from the same tree has its own files.

    The other settings are those of `image_folder`.
    """
    check_image_folder(size, resize, limit, test_limit, validation, white)
    place = Path(root).expanduser().absolute()
    named_splits, notes = split_folders(place, train, test)
    listings = {split: listing(place / name, groups) for split, name in named_splits.items()}
    _agree(listings)
    own = numbers(classes, listings["test"].classes)
    made, reader = {}, Reader(white)
    for split, every in listings.items():
        if split == "train":
            chosen = balanced(every.targets, limit, seed, setting="limit", least=len(every.classes))
        else:
            chosen = balanced(every.targets, test_limit, seed, setting="test_limit")
        taken = replace(every, files=tuple(every.files[i] for i in chosen.tolist()), targets=every.targets[chosen])
        held_out = stratified(taken.targets, validation, seed) if split == "train" else None
        store = Path(pack).expanduser() if pack else place.with_name(place.name + ".packed")
        part = "all" if len(chosen) == len(every.files) else f"{len(chosen)}-seed{seed}"
        path = store / f"{title}{every.folder.name}-{resize or 'as-is'}-{size}-{part}.h5"
        images, targets = _rows(path, taken, size, resize, reader), torch.tensor(own)[taken.targets]
        told = notes + every.notes if split == "test" else every.notes
        made[split] = Split(images, targets, names_by_number(taken.classes, own), validation=held_out, notes=told)
    return made


def _agree(listings: dict[str, Listing]) -> None:
    if len(listings) == 1:
        return
    train, test = listings["train"], listings["test"]
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(
            f"{test.folder}: its {len(test.classes)} classes are not the {len(train.classes)} of {train.folder} "
            f"(only one of the two has {', '.join(odd[:5])}); give both the same class folders"
        )


def _rows(path: Path, listed: Listing, size: int, resize: Resize, reader: Reader) -> rows.StoredArray:
    """Return the packed images: those of an earlier run if they are the same, else images that are packed now."""
    attributes: dict[str, Any] = {
        "format": FORMAT,
        "files": _digest(listed),
        "size": size,
        "resize": resize or 0,
        "count": len(listed.files),
        "white": reader.white or 0.0,
    }
    known = rows.packed(path, "images", attributes)
    if known is not None:
        return known
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError("no write permission")
        return rows.pack(
            path, "images", (len(listed.files), 3, size, size), _decode(listed, size, resize, reader), attributes
        )
    except OSError as error:
        raise ValueError(f"{path}: the images cannot be packed there ({error}); set pack to another folder") from error


def _digest(listed: Listing) -> str:
    """Return the SHA-256 of each file's name in the tree, size and time, 16 digits."""
    whole, start = hashlib.sha256(), len(str(listed.folder))
    for file in listed.files:
        try:
            state = os.stat(file)  # noqa: PTH116  a Path for each of a million files takes minutes
        except OSError as error:
            raise FileNotFoundError(
                f"{file}: listed but not readable ({error.strerror}); restore or remove it"
            ) from error
        try:
            whole.update(f"{file[start:]}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
        except UnicodeEncodeError as error:
            raise ValueError(f"{file!r}: its name is no UTF-8 text, which reports cannot show; rename it") from error
    return whole.hexdigest()[:16]


def _decode(listed: Listing, size: int, resize: Resize, reader: Reader) -> Iterator[UInt8[np.ndarray, "b 3 h w"]]:
    """Yield the images in blocks, decoded by one thread for each core: decoders and resizing release Python's lock."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS
    block = 32 * workers
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(listed.files), desc=f"packing {listed.folder}", unit="image", disable=None) as bar,
    ):
        for first in range(0, len(listed.files), block):
            files = listed.files[first : first + block]
            yield np.stack(list(pool.map(partial(_image, size=size, resize=resize, reader=reader), files)))
            bar.update(len(files))


def _image(file: str, size: int, resize: Resize, reader: Reader) -> UInt8[np.ndarray, "3 h w"]:
    image = reader(file)
    if resize is not None:
        image = F.resize(image, [size, size] if resize == "squeeze" else resize)
    if min(image.size) < size:
        raise ValueError(f"{file}: {image.width}x{image.height} pixels, expected at least {size}x{size}; set resize")
    return np.asarray(F.center_crop(image, size)).transpose(2, 0, 1)
