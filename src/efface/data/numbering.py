"""The network's number of each class folder: from a list, a file, or the WordNet ids of ImageNet."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from efface.base.shown import shown

IMAGENET = "imagenet"
Classes = str | list[int] | list[str] | dict[str, int] | None


def numbers(classes: Classes, names: Sequence[str], *, called: str = "class folders") -> tuple[int, ...]:
    """Return the network's number of each class, in the order of `names`.

    classes: None: 0, 1, 2, ... A list of numbers: one for each name. A list of names: the network's classes in the
        order of its outputs. A mapping: the number of each name. `imagenet`: the names are WordNet ids (n01440764 is
        0). Any other text: a file, see `_read`.
    called: what errors call the names.

    FileNotFoundError: there is no such file. ValueError: a class has no number, or two classes have the same.
    """
    if classes is None:
        return tuple(range(len(names)))
    given, where = classes, "classes"
    if isinstance(classes, str):
        where = f"classes: {classes}"
        given = imagenet_ids() if classes == IMAGENET else _read(Path(classes).expanduser(), names)
    known = _by_name(given, names, where, called)
    if missing := [name for name in names if name not in known]:
        raise ValueError(
            f"{where}: has no number for {len(missing)} of {len(names)} {called} ({', '.join(missing[:5])}); "
            f"add them, or rename the {called}"
        )
    in_order = tuple(known[name] for name in names)
    for name, number in zip(names, in_order, strict=True):
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise ValueError(
                f"{where}: {name} has the number {shown(number)}, expected a whole number from 0; correct it"
            )
        if in_order.count(number) > 1:
            same = [other for other, taken in zip(names, in_order, strict=True) if taken == number]
            raise ValueError(f"{where}: {' and '.join(same)} have the same number, {number}; give each its own")
    return in_order


def names_by_number(names: Sequence[str], found: Sequence[int]) -> tuple[str, ...]:
    """Return a name for each number of the network up to the largest: of its class folder, else the number."""
    by_number = dict(zip(found, names, strict=True))
    return tuple(by_number.get(number, str(number)) for number in range(max(found) + 1))


def imagenet_ids() -> list[str]:
    """Return the 1,000 WordNet ids of ImageNet's classes in the usual order, which is that of the alphabet."""
    return Path(__file__).with_name("imagenet_ids.txt").read_text().split()


def _by_name(given: Any, names: Sequence[str], where: str, called: str) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        return given
    listed = list(given)
    if all(isinstance(entry, str) for entry in listed):
        return {name: number for number, name in reversed(list(enumerate(listed)))}
    if len(listed) != len(names):
        raise ValueError(
            f"{where}: {len(listed)} numbers, expected {len(names)}: one for each of the {called} in their order "
            f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        )
    return dict(zip(names, listed, strict=True))


def _read(path: Path, names: Sequence[str]) -> Any:
    """Return what a file tells of classes.

    A .json file holds a list, an object of numbers by name, or an object of names by number (`{"0": ["n01440764",
    "tench"]}`). Any other file has a line for each output of the network, which is the name of a class folder or begins
    with it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"classes: {path}: no such file, expected '{IMAGENET}', a list, or a file; correct it")
    try:
        text = path.read_text(encoding="utf-8-sig")
        given = json.loads(text) if path.suffix.lower() == ".json" else None
    except ValueError as error:  # of JSON or of the encoding
        raise ValueError(f"classes: {path}: not readable ({error}); write JSON, or a name a line in UTF-8") from error
    if given is None:
        lines = [line.strip() for line in text.splitlines()]
        while lines and not lines[-1]:
            lines.pop()
        return [line if line in names else (line.split() or [""])[0] for line in lines]
    if isinstance(given, dict) and given and all(key.isdecimal() and not isinstance(given[key], int) for key in given):
        known = {*names}
        by_name: dict[str, int] = {}
        for number, entry in given.items():
            for name in (entry if isinstance(entry, list) else [entry])[::-1]:
                if name in known or name not in by_name:
                    by_name[str(name)] = int(number)
        return by_name
    if not isinstance(given, dict | list):
        raise ValueError(f"classes: {path}: holds a {type(given).__name__}, expected a list or an object")
    return given
