"""A second, plain name of a network's file: `models/network.pt` is a link to `models/network-<key>.pt` beside it."""

import filecmp
import re
from pathlib import Path

from efface.store.atomic import atomic_write

NAMES = ("network", "second_network")
"""Networks of a run, by the names of their files."""


def is_plain_name(path: Path) -> bool:
    """Return whether a path is such a link: by its name, and because it points to a file of its network beside it."""
    if path.suffix != ".pt" or path.stem not in NAMES or not path.is_symlink():
        return False
    return re.fullmatch(rf"{path.stem}-[0-9a-f]+\.pt", str(path.readlink())) is not None


def name_plainly(path: Path, name: str) -> str:
    """Let `name.pt` beside a file point to it, and return "", or a sentence on another file that has this name.

    A file of that name is replaced only if it is a copy of a file `name-<key>.pt` beside it: a copy of the folder that
    follows links has such files.

    OSError: the disk has no symbolic links.
    """
    link = path.with_name(f"{name}.pt")
    if is_plain_name(link) and str(link.readlink()) == path.name:
        return ""
    if not is_plain_name(link) and (link.exists() or link.is_symlink()):
        if not link.is_symlink() and link.is_file() and filecmp.cmp(link, path, shallow=False):
            return ""
        if link.is_symlink() or not _is_copy(link, name):
            return f"{link}: is not the link that efface would make, so it stays as it is; the network is {path}"
    with atomic_write(link) as temporary:
        temporary.symlink_to(path.name)
    return ""


def remove_plain_name(folder: Path, name: str) -> None:
    """Remove the link `name.pt` in a folder; a file of that name stays."""
    link = folder / f"{name}.pt"
    if is_plain_name(link):
        link.unlink()


def _is_copy(path: Path, name: str) -> bool:
    beside = path.parent.glob(f"{name}-*.pt")
    return path.is_file() and any(filecmp.cmp(path, file, shallow=False) for file in beside)
