"""Trees of images with a folder for each class. They are decoded once into a file that is read as a memory map."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from efface.base.types import Split
from efface.data.decode import Reader, White
from efface.data.numbering import Classes, names_by_number, numbers
from efface.data.packing import Framing, Picture, Resize, check_framing, packed_images
from efface.data.subset import Choice, Interpolation
from efface.data.tree import Groups, Listing, listing, split_folders
from efface.plug.shared_settings import with_settings_of
from efface.store.arrays import StoredArray


@with_settings_of(Choice, after="pack")
def grouped_folder(
    groups: Groups,
    *,
    root: str,
    size: int = 224,
    resize: Resize = 256,
    train: str | None = None,
    test: str | None = None,
    pack: str | None = None,
    classes: Classes = None,
    white: White = None,
    interpolation: Interpolation = "bilinear",
    title: str = "",
    **limits: Any,
) -> dict[str, Split]:
    """Return images as `image_folder` does. Each class consists of some of the tree's folders; others are ignored.

    groups: function that assigns folders to classes.
    title: prefix of the names of the packed files, so that another choice from the same tree has its own files.

    The other settings are those of `image_folder`.
    """
    choice = Choice(**limits)
    check_framing(size, resize, white=white, **choice.counts())
    place = Path(root).expanduser().absolute()
    named_splits, notes = split_folders(place, train, test)
    listings = {split: listing(place / name, groups) for split, name in named_splits.items()}
    _agree(listings)
    own = numbers(classes, listings["test"].classes)
    framing, made, reader = Framing(size, resize, interpolation, white), {}, Reader(white)
    store = Path(pack).expanduser() if pack else place.with_name(place.name + ".packed")
    for split, every in listings.items():
        rows, held_out, said = choice.of(split, every.targets, len(every.classes))
        taken = replace(every, files=tuple(every.files[i] for i in rows.tolist()), targets=every.targets[rows])
        path = store / f"{title}{every.folder.name}-{framing.file_name(said)}"
        images, targets = _packed(path, taken, framing, reader), torch.tensor(own)[taken.targets]
        told = notes + every.notes if split == "test" else every.notes
        made[split] = Split(images, targets, names_by_number(taken.classes, own), validation=held_out, notes=told)
    return made


@with_settings_of(grouped_folder, but=("title",))
def image_folder(**settings: Any) -> dict[str, Split]:
    """RGB images of a tree `root/<split>/<class>/*`, resized, cropped, and packed once into contiguous HDF5.

    A packed file is used again while the images have the same names, sizes and times and the packed rows have the same
    digest. Only the chosen images are decoded. Classes are sorted by name, as in torchvision's ImageFolder. Hidden
    folders, files without the ending of an image, and links that lead back are left out; `Split.notes` counts them.

    root: folder of the tree. To use no training split, give the test folder as the root.
    size: height and width of the centre crop, in pixels.
    resize: length of the shorter side before the crop, in pixels; None: no resizing; squeeze: both sides are resized
        to `size` without a crop, which changes the proportions of the objects.
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
    interpolation: how images are resized, `bilinear` or `bicubic`, both antialiased.

    Differs: ImageFolder ignores the orientation of EXIF and drops transparency. Here the orientation is applied, and
        transparent images are laid on white.
    """
    return grouped_folder(lambda _folder, names: {name: [name] for name in names}, **settings)


check_image_folder = check_framing


def _packed(path: Path, listed: Listing, framing: Framing, reader: Reader) -> StoredArray:
    def pictures(first: int, last: int) -> list[Picture]:
        return [Picture(file, file) for file in listed.files[first:last]]

    return packed_images(
        path,
        pictures,
        len(listed.files),
        digest=_digest(listed),
        framing=framing,
        reader=reader,
        title=str(listed.folder),
    )


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
