"""Parts of a table of pictures that a study takes for its training and its test split, such as `train[:80%]`."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from efface.data.tree import TEST, TRAINING

Train = str | Literal[False] | None


class Rows(NamedTuple):
    """Rows of one split of the set: from `first` up to `last`, which is excluded."""

    split: str
    first: int
    last: int


@dataclass(frozen=True)
class Part:
    """What a study takes for one of its splits.

    name: what errors call it.
    spec: how the study names it, such as `train[:80%]`.
    data: these rows, as the library's table.
    origin: digest of the files that the rows come from, and of their numbers.
    """

    name: str
    spec: str
    data: Any
    rows: tuple[Rows, ...]
    origin: str

    def file_name(self) -> str:
        """Return the part of a packed file's name that tells the rows. Other parts have other names."""
        plain = re.sub(r"[^\w.-]+", "-", self.spec).strip("-")
        return plain if plain == self.spec else f"{plain}-{digest(self.spec)[:6]}"


def wanted_parts(name: str, found: Mapping[str, Any], train: Train, test: str | None) -> dict[str, str]:
    """Return what the study takes for `train` and `test`, from its settings and the names of the splits."""
    listed = ", ".join(f"{split} ({len(data):,})" for split, data in found.items())
    if len(found) == 1 and test is None:
        only = next(iter(found))
        raise ValueError(
            f"{name}: has only the split {listed}, expected a training and a test split; set both to parts of it, such "
            f"as train: '{only}[:80%]' and test: '{only}[80%:]', or set test: {only} to train nothing"
        )
    given = {"train": train or None, "test": test}
    known = {"train": TRAINING, "test": TEST}
    specs = {}
    for role in ("train", "test"):
        alike = [split for split in found if split.lower() in known[role] and split not in given.values()]
        if given[role] is not None:
            specs[role] = str(given[role])
        elif role == "train" and (train is False or not alike):
            continue
        elif len(alike) != 1:
            raise ValueError(
                f"{name}: has {len(alike)} splits that look like the {role} split, expected one; there are {listed}; "
                f"set {role} to the one to use"
            )
        else:
            specs[role] = alike[0]
    return specs


def part_of(library: Any, name: str, found: Mapping[str, Any], spec: str) -> Part:
    """Return the rows that a text such as `train[:80%]` names."""
    lengths = {split: len(data) for split, data in found.items()}
    try:
        asked = library.ReadInstruction.from_spec(spec).to_absolute(lengths)
    except (ValueError, AssertionError, KeyError) as problem:
        listed = ", ".join(f"{split} ({length:,})" for split, length in lengths.items())
        raise ValueError(
            f"{name}: there is no split {spec} ({problem}), expected one of {listed}, or a part such as "
            f"{next(iter(lengths))}[:80%]; change train or test"
        ) from problem
    rows = tuple(Rows(each.splitname, each.from_ or 0, _last(each.to, lengths[each.splitname])) for each in asked)
    taken = [found[each.split].select(range(each.first, each.last)) for each in rows]
    origin = digest(*(f"{_origin(found[each.split])} {each}" for each in rows))
    data = taken[0] if len(taken) == 1 else library.concatenate_datasets(taken)
    return Part(f"{name}, {spec}", spec, data, rows, origin)


def refuse_overlap(name: str, parts: Mapping[str, Part]) -> None:
    """Raise ValueError if a row is in the training and in the test part."""
    if "train" not in parts:
        return
    for one in parts["train"].rows:
        for other in parts["test"].rows:
            if one.split == other.split and max(one.first, other.first) < min(one.last, other.last):
                raise ValueError(
                    f"{name}: train ({parts['train'].spec}) and test ({parts['test'].spec}) have rows of {one.split} "
                    "in common, expected different images; change one of them"
                )


def digest(*parts: object) -> str:
    """Return the SHA-256 of some values, 16 digits."""
    return hashlib.sha256("\0".join(map(repr, parts)).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _last(given: int | None, length: int) -> int:
    return length if given is None else given


def _origin(data: Any) -> str:
    """Return what changes when the rows of a split change: the library's fingerprint, and its files."""
    # The library's own number of a table has no public name.
    said = [str(data._fingerprint)]  # noqa: SLF001
    for file in sorted(each["filename"] for each in data.cache_files):
        state = Path(file).stat()
        said.append(f"{Path(file).name} {state.st_size} {state.st_mtime_ns}")
    return " ".join(said)
