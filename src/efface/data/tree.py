"""The folders of a tree of images: which are splits, which are classes, which files are images, what is left out."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from efface.data.missing import to_get_photographs

TRAINING = ("train", "training")
TEST = ("val", "valid", "validation", "test", "testing", "eval", "evaluation")
"""Names of split folders, in any case. Folders of these names are never taken for classes without a word."""
_SYSTEM = ("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "__pycache__")

Groups = Callable[[Path, list[str]], Mapping[str, Sequence[str]]]
"""Function of a split's folder and its sorted class folders. It returns the classes in order, each with its folders."""


@dataclass(frozen=True)
class Listing:
    """The images of one split, in ImageFolder's order.

    targets: place of each image's class in `classes`.
    notes: sentences on what is left out.
    """

    folder: Path
    files: tuple[str, ...]
    targets: torch.Tensor
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def split_folders(root: Path, train: str | None, test: str | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the folder of each split, from the settings and the folders that exist, and sentences on what was taken.

    `train`, `val` and `test` are found in any case. Other names that look like splits must be named by the settings.

    FileNotFoundError: a folder does not exist. ValueError: it is not clear which folder is meant.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder, expected a tree of images; {to_get_photographs(root)}")
    for setting, name in (("train", train), ("test", test)):
        if name is not None and not (root / name).is_dir():
            raise FileNotFoundError(
                f"{root / name}: no such folder, expected a folder for each class; change {setting}"
            )
    there = _splits_in(root)
    if train is None and test != ".":
        train = _one_of(root, [name for name in there if name.lower() in TRAINING and name != test], "train")
    if test is None:
        test = _one_of(root, [name for name in there if name.lower() in TEST and name != train], "test")
        if test is None and train is not None:
            raise FileNotFoundError(f"{root}: holds neither val nor test; set test to the folder of the test split")
    folders = {name: folder for name, folder in (("train", train), ("test", test or ".")) if folder is not None}
    odd = [
        f"{root}: the folder '{folder}' is taken for the split '{name}'"
        for name, folder in folders.items()
        if folder != folder.lower() and folder in there
    ]
    return folders, tuple(odd)


def class_folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden ones."""
    return sorted(entry.name for entry in _entries(folder) if not is_hidden(entry.name) and Path(entry.path).is_dir())


def is_hidden(name: str) -> bool:
    """Return True for names that begin with a point, such as .ipynb_checkpoints, and for folders of file systems."""
    return name.startswith(".") or name.lower() in _SYSTEM


def listing(folder: Path, groups: Groups) -> Listing:
    """Return all images of a split.

    A class folder is read with the folders below it, links followed. A link that leads back into the split is left out.

    FileNotFoundError: there are no class folders. ValueError: a class holds no image, or holds the folders of splits.
    """
    back = [name for name in class_folders(folder) if _leads_back(folder / name)]
    names = [name for name in class_folders(folder) if name not in back]
    if not names:
        raise FileNotFoundError(f"{folder}: holds no folders, expected one for each class, with its images")
    chosen = groups(folder, names)
    number = {name: at for at, members in enumerate(chosen.values()) for name in members}
    every = {name: _files(folder, name) for name in sorted(number)}
    empty = [name for name, content in every.items() if not content.images]
    if empty:
        others = _kinds(sum((every[name].others for name in empty), Counter()))
        raise ValueError(
            f"{folder}: {len(empty)} of {len(number)} class folders hold no image ({', '.join(empty[:5])}"
            f"{f'; they hold {others}' if others else ''}), expected files named {', '.join(IMG_EXTENSIONS)}; remove "
            "or fill them"
        )
    files = [
        os.path.join(where, name)  # noqa: PTH118  fast
        for content in every.values()
        for where, name in content.images
    ]
    targets = [number[name] for name, content in every.items() for _ in content.images]
    notes = _notes(folder, [*every.values(), _Found(back=[str(folder / name) for name in back])])
    return Listing(folder, tuple(files), torch.tensor(targets, dtype=torch.int64), tuple(chosen), notes)


def _leads_back(path: Path) -> bool:
    """Return whether a class folder is a link to the split itself or to a folder above it."""
    return path.is_symlink() and path.resolve() in (path.parent.resolve(), *path.parent.resolve().parents)


@dataclass
class _Found:
    """Content of one class folder. images: folder and name of each image. others: other files, by their ending."""

    images: list[tuple[str, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    hidden: list[str] = field(default_factory=list)
    back: list[str] = field(default_factory=list)


def _files(split: Path, name: str) -> _Found:
    """Return what a class folder and the folders below it hold. Each real folder is read once, so links cannot loop."""
    top, content = split / name, _Found()
    base = os.path.realpath(split)
    seen = {base, *map(str, Path(base).parents)}
    todo, links = [str(top)], list[str]()
    while todo or links:
        linked = not todo
        folder = (todo or links).pop()
        real = os.path.realpath(folder)
        if real in seen or (linked and real.startswith(base + os.sep)):
            content.back.append(folder)
            continue
        seen.add(real)
        folders = []
        for entry in _entries(folder):
            is_folder = Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()
            is_image = not is_folder and entry.name.lower().endswith(IMG_EXTENSIONS)
            if is_hidden(entry.name):
                content.hidden += [entry.path] if is_folder or is_image else []
            elif is_folder:
                folders.append(entry.name)
                (links if entry.is_symlink() else todo).append(entry.path)
            elif is_image:
                content.images.append((folder, entry.name))
            else:
                content.others[Path(entry.name).suffix.lower() or "no ending"] += 1
        _refuse_splits(Path(folder), folders)
    content.images.sort()
    return content


def _refuse_splits(folder: Path, names: list[str]) -> None:
    lower = {name.lower() for name in names}
    if lower & {*TRAINING} and lower & {*TEST}:
        raise ValueError(
            f"{folder}: is read as a class, but holds the folders {', '.join(sorted(names)[:5])}, which look like "
            "splits; give this folder as root"
        )


def _splits_in(root: Path) -> list[str]:
    """Return the folders that look like splits. Beside other classes, a folder of images may be a class 'train'."""
    names = class_folders(root)
    alike = [name for name in names if name.lower() in TRAINING + TEST]
    if len(alike) < len(names) and all(_holds_images(root / name) for name in alike):
        return []
    return alike


def _holds_images(folder: Path) -> bool:
    return any(entry.name.lower().endswith(IMG_EXTENSIONS) for entry in _entries(folder) if not is_hidden(entry.name))


def _one_of(root: Path, names: list[str], setting: str) -> str | None:
    if len(names) > 1:
        raise ValueError(
            f"{root}: holds {' and '.join(names)}, which look like splits, expected one of them; set {setting} to the "
            "folder to use"
        )
    if names and names[0].lower() not in ("train", "val", "test"):
        none = "; to use no training split, give the test folder as root" if setting == "train" else ""
        raise ValueError(
            f"{root}: '{names[0]}' looks like the {setting} split, expected one named "
            f"{'train' if setting == 'train' else 'val or test'}; set {setting}: {names[0]}{none}"
        )
    return names[0] if names else None


def _entries(folder: Path | str) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        yield from entries


def _notes(folder: Path, every: Sequence[_Found]) -> tuple[str, ...]:
    beside = sum(
        entry.name.lower().endswith(IMG_EXTENSIONS) and not is_hidden(entry.name) and entry.is_file()
        for entry in _entries(folder)
    )
    hidden = sorted(entry.path for entry in _entries(folder) if is_hidden(entry.name) and entry.is_dir())
    hidden += [path for content in every for path in content.hidden]
    others, back = (
        sum((content.others for content in every), Counter[str]()),
        [path for one in every for path in one.back],
    )
    said = []
    if others:
        said.append(
            f"{folder}: {others.total()} files are no images by their names and are left out ({_kinds(others)})"
        )
    if beside:
        said.append(f"{folder}: {beside} images lie beside the class folders, in no class, and are left out")
    if hidden:
        first = Path(hidden[0]).relative_to(folder)
        said.append(f"{folder}: {len(hidden)} hidden files and folders are left out, the first is {first}")
    if back:
        first = Path(back[0]).relative_to(folder)
        said.append(f"{folder}: {len(back)} links lead back into the tree and are left out, the first is {first}")
    return tuple(said)


def _kinds(others: Counter[str]) -> str:
    return ", ".join(f"{count} {ending}" for ending, count in others.most_common(5))
