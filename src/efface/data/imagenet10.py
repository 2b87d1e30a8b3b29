"""ImageNet-10: ten classes of six ImageNet classes each, from an ImageNet tree."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from efface.base.types import Split
from efface.data.folder import grouped_folder, image_folder
from efface.data.packing import Resize, check_framing
from efface.plug.shared_settings import with_settings_of

ALL = 1000
NUMBERS: Mapping[str, Sequence[int]] = {
    "dog": range(151, 157),
    "bird": range(7, 13),
    "insect": range(300, 306),
    "monkey": range(370, 376),
    "car": (407, 436, 468, 511, 609, 627),
    "feline": range(286, 292),
    "truck": (555, 569, 675, 717, 734, 864),
    "fruit": (948, 984, 987, 988, 989, 990),
    "fungus": range(991, 997),
    "boat": (472, 554, 576, 625, 814, 914),
}
"""The classes in order, with the positions of their ImageNet classes in the list of all 1,000 folders by name."""


@with_settings_of(image_folder)
def imagenet10(
    *,
    root: str,
    folders: Mapping[str, Sequence[str]] | None = None,
    size: int = 112,
    resize: Resize = 128,
    **others: Any,
) -> dict[str, Split]:
    """Dog, bird, insect, monkey, car, feline, truck, fruit, fungus, boat: up to 78,000 training and 3,000 test images.

    The images are RGB, resized to 128, cropped to 112x112 and packed once as in `image_folder`; an image takes 38 kB.
    Networks take them in [0, 1], without normalisation. Other folders of the tree are ignored. Settings that are not
    listed here are those of `image_folder`.

    root: folder of a tree `root/train/<class>/*`, `root/val/<class>/*` with all 1,000 class folders (n01440764, ...).
        The folders are chosen by their position in the sorted list of names.
    folders: for a tree with other folders, the names of the folders of each class, such as `{dog: [n02085620]}`.
    size: height and width of the centre crop, in pixels.
    resize: length of the shorter side before the crop, in pixels; None: no resizing; squeeze: both sides are resized to
        `size` without a crop.

    Source: Shah, Jain & Netrapalli 2021 (arXiv:2102.12781), the balanced `mixed_10` of the robustness library.
    Differs: training images are cropped once, like test images. Random windows of that crop need
        `efface.training.augment.random_resized_crop` in `fit.augment`. In the paper, the windows are of the photograph
        resized to 128.
    """

    def groups(folder: Path, names: list[str]) -> Mapping[str, Sequence[str]]:
        if folders is None:
            if len(names) != ALL:
                raise ValueError(
                    f"{folder}: {len(names)} class folders, expected all {ALL} of ImageNet, because 60 of them are "
                    "chosen by their position; take the whole tree, or name the folders of each class in "
                    "data.kwargs.folders"
                )
            return {name: [names[place] for place in places] for name, places in NUMBERS.items()}
        missing = sorted({name for listed in folders.values() for name in listed} - {*names})
        if missing:
            raise ValueError(
                f"{folder}: {len(missing)} of the named folders do not exist ({', '.join(missing[:5])}); correct "
                "data.kwargs.folders"
            )
        return folders

    return grouped_folder(groups, root=root, size=size, resize=resize, title="imagenet10-", **others)


@with_settings_of(check_framing)
def check_imagenet10(size: int = 112, resize: Resize = 128, **others: Any) -> None:
    """Raise ValueError for settings that no tree can meet."""
    check_framing(size, resize, **others)
