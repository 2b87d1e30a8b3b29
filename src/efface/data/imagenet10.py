"""ImageNet-10: ten classes of six ImageNet classes each, from an ImageNet tree."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from efface.data.folder import Resize, grouped_folder
from efface.types import Split

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
"""The classes in their order, with the places of their ImageNet classes when all 1,000 folders are sorted by name."""


def imagenet10(
    *,
    root: str,
    folders: Mapping[str, Sequence[str]] | None = None,
    size: int = 112,
    resize: Resize = 128,
    train: str | None = None,
    test: str | None = None,
    pack: str | None = None,
    limit: int | None = None,
    test_limit: int | None = None,
    validation: float = 0.0,
    seed: int = 0,
) -> dict[str, Split]:
    """Dog, bird, insect, monkey, car, feline, truck, fruit, fungus, boat: up to 78,000 images to train, 3,000 to test.

    RGB, resized to 128 and cropped to 112x112, packed once as `image_folder` packs; 38 kB an image. Networks take them
    as they are, in [0, 1]. Other folders of the tree are not looked at. The settings not listed here are
    `image_folder`'s.

    root: a tree `root/train/<class>/*`, `root/val/<class>/*` with all 1,000 class folders (n01440764, ...): which of
        them are meant is known by their place when sorted by name.
    folders: for a tree that has not all 1,000: each class with the names of its folders, e.g. `{dog: [n02085620]}`.
    size: height and width of the centre crop, in pixels.
    resize: length of the shorter side before it; None: as it is; squeeze: both sides to `size`, without a crop.

    Source: Shah, Jain & Netrapalli 2021 (arXiv:2102.12781), the balanced `mixed_10` of the robustness library.
    Differs: training images are cropped like test images, once; random windows of that crop are
        `efface.training.augment.random_resized_crop` in `fit.augment`, theirs are of the photograph resized to 128.
    """

    def groups(folder: Path, names: list[str]) -> Mapping[str, Sequence[str]]:
        if folders is None:
            if len(names) != ALL:
                raise ValueError(
                    f"{folder}: {len(names)} class folders, expected all {ALL} of ImageNet, of which 60 are known by "
                    "their place; take the whole tree, or name the folders of each class in data.kwargs.folders"
                )
            return {name: [names[place] for place in places] for name, places in NUMBERS.items()}
        missing = sorted({each for listed in folders.values() for each in listed} - {*names})
        if missing:
            raise ValueError(
                f"{folder}: {len(missing)} of the named folders are not there ({', '.join(missing[:5])}); correct "
                "data.kwargs.folders"
            )
        return folders

    return grouped_folder(
        root=root,
        groups=groups,
        size=size,
        resize=resize,
        train=train,
        test=test,
        pack=pack,
        limit=limit,
        test_limit=test_limit,
        validation=validation,
        seed=seed,
        title="imagenet10-",
    )
