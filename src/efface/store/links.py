"""Links in a run folder: efface writes through none of them, symbolic or hard."""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from efface.store.atomic import atomic_write
from efface.store.plain_name import is_plain_name

FOLDERS = (
    "models",
    "learnt",
    "maps",
    "scores",
    "report",
    "kept",
    "samples",
    "figures",
    "partial",
    "data",
    "tensorboard",
)
"""Folders of a run that efface writes into."""
FILES = (
    "study.yml",
    "plan.json",
    "results.jsonl",
    "results.jsonl.damaged",
    "failures.log",
    "failures.json",
    "verified.json",
    ".lock",
    ".owner",
    ".report-lock",
)
"""Files of a run that efface writes at its top."""


IN_PLACE = ("study.yml", "results.jsonl", "results.jsonl.damaged", "failures.log")
"""Files among them that efface changes in place. It changes maps in place, too, while they are extracted."""


def refuse_links(out: Path, folders: Iterable[Path]) -> None:
    """Raise ValueError if something that efface writes in a run is a symbolic link, or lies behind one.

    `out` itself may be a link, and so may its parents. Entries that efface does not know are ignored. The plain name of
    a network, `models/network.pt`, is a link that efface makes; it may point to a file beside it.

    out: folder of the study. folders: folders of its runs, at or below `out`.
    """
    for folder in dict.fromkeys((out, *folders)):
        inside = folder.relative_to(out).parts if folder != out and folder.is_relative_to(out) else ()
        steps = (out.joinpath(*inside[:depth]) for depth in range(1, len(inside) + 1))
        if link := next((step for step in steps if step.is_symlink()), None) or next(_links(folder), None):
            raise ValueError(
                f"{link}: is a symbolic link to {link.readlink()}, and efface writes through no link inside a run "
                f"folder; put the content itself there, or delete the link (the whole folder {out} may be a link)"
            )


def unshare(folder: Path) -> None:
    """Give a run its own copy of each file that efface changes in place and that has a second name (a hard link).

    Such names come from copies like `cp -al`. Without this, the earlier copy of the run would change, too. The caller
    holds the run's lock.
    """
    partial = [Path(entry.path) for entry in _entries(folder / "maps") if entry.name.endswith(".partial")]
    for path in (*(folder / name for name in IN_PLACE), *partial):
        if path.is_file() and path.stat().st_nlink > 1:
            with atomic_write(path) as temporary:
                shutil.copy2(path, temporary)


def _links(folder: Path) -> Iterator[Path]:
    for entry in _entries(folder):
        if entry.name not in (*FOLDERS, *FILES):
            continue
        if entry.is_symlink():
            yield Path(entry.path)
        elif entry.is_dir():
            made = entry.name == "models"
            yield from (path for path in _below(entry.path) if not (made and _names_a_network(path, entry.path)))


def _names_a_network(path: Path, models: str) -> bool:
    return path.parent == Path(models) and is_plain_name(path)


def _below(folder: str) -> Iterator[Path]:
    for entry in _entries(folder):
        if entry.is_symlink():
            yield Path(entry.path)
        elif entry.is_dir():
            yield from _below(entry.path)


def _entries(folder: Path | str) -> list["os.DirEntry[str]"]:
    if not os.path.isdir(folder):  # noqa: PTH112  as text, for thousands of entries
        return []
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)
