"""An old configuration: its keys by dotted path, what each of them became, and what is wrong."""

import difflib
import os.path
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from efface.base.shown import key_shown, shown
from efface.study.yaml_file import InvalidStudyError, no_such_file
from efface.study.yaml_text import YamlTextError, read_yaml

MODEL = ("arch", "pretrained_weights", "constructor_args", "transformer")
TRAINING = ("scheduler", "optimizer", "loss", "batch_size", "nb_epochs")
ROAR = ("train_cls", "extract_cams", "retrain_cls")
"""Sections of a configuration for ROAR. A configuration for LeRF has the section `LERF`."""
LERF = "pixel_perturbation_analysis"
SECTIONS = {
    "data": ("dataset", "split_ratio", "dataset_dir"),
    "train_cls": ("model", *TRAINING),
    "extract_cams": ("model", "attribution_methods"),
    "retrain_cls": ("model", "attribution_methods", "metrics", "percentiles", *TRAINING),
    LERF: ("model", "attribution_methods", "percentiles", "test_samples"),
}
TOP = ("desc", "outdir", *SECTIONS)
_NEAR = 0.8
"""Similarity from which an unknown key counts as misspelt."""


@dataclass(frozen=True)
class Line:
    """What one key became.

    key: dotted path in the old file. value: what it holds. became: keys of the study; "" if there is no counterpart, or
    nothing to convert. why: sentences on the difference, or why there is no counterpart; "" if the key is empty.
    again: the key says again what another one said.
    """

    key: str
    value: Any
    became: str
    why: str = ""
    again: bool = False


@dataclass
class Old:
    """A configuration, from one file or from several that complete one another.

    paths: its files. tree: its content. files: the file of each key of the top level. lines: what became of each key.
    problems: sentences on what is wrong.
    """

    paths: tuple[Path, ...]
    tree: dict[str, Any]
    files: dict[str, Path]
    lines: list[Line] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def has(self, key: str) -> bool:
        """Return whether the key stands in the file, even if it is empty."""
        *parents, last = key.split(".")
        place = self.get(".".join(parents)) if parents else self.tree
        return isinstance(place, dict) and last in place

    def get(self, key: str) -> Any:
        """Return the value of a dotted key; None if it is empty or not there."""
        place: Any = self.tree
        for part in key.split("."):
            place = place.get(part) if isinstance(place, dict) else None
        return place

    def became(self, key: str, new: str, why: str = "", *, again: bool = False) -> None:
        """Note what a key became, if it is there."""
        if self.has(key):
            self.lines.append(Line(key, self.get(key), new, why, again))

    def nothing(self, key: str, why: str = "") -> None:
        """Note that a key has no counterpart, if it is there; without a reason, that it is empty."""
        self.became(key, "", why)

    def file(self, key: str) -> Path:
        """Return the file that holds the section of a key; the first file if none does."""
        return self.files.get(key.partition(".")[0], self.paths[0])

    def problem(self, key: str, text: str) -> None:
        """Note what is wrong with a key."""
        self.problems.append(f"{self.file(key)}: {key}: {text}")

    def in_order(self) -> list[Line]:
        """Return the lines in the order of the keys in the files."""
        places = {key: number for number, key in enumerate(_keys(self.tree))}

        def place(line: Line) -> int:
            parts = line.key.split(".")
            starts = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
            return next((places[start] for start in starts if start in places), len(places))

        return sorted(self.lines, key=place)

    def wrong(self, key: str, expected: str) -> None:
        """Note that the value of a key is wrong, or that the key is missing."""
        found = f"is {shown(self.get(key))}" if self.has(key) else "is missing"
        self.problem(key, f"{found}; expected {expected}")

    def number(self, key: str, *, whole: bool = True) -> Any:
        """Return a number above 0; None, with a problem noted, for anything else."""
        value = self.get(key)
        kinds = (int,) if whole else (int, float)
        if isinstance(value, kinds) and not isinstance(value, bool) and value > 0:
            return value
        self.wrong(key, "a whole number above 0" if whole else "a number above 0")
        return None

    def text(self, key: str, expected: str) -> str:
        """Return a text; "", with a problem noted, for anything else."""
        value = self.get(key)
        if isinstance(value, str) and value:
            return value
        self.wrong(key, expected)
        return ""

    def mapping(self, key: str) -> dict[str, Any]:
        """Return a mapping; an empty one for an empty key, and for anything else, with a problem noted."""
        value = self.get(key)
        if value is None or isinstance(value, dict):
            return dict(value or {})
        self.wrong(key, "keys and values")
        return {}


def read_old(paths: Sequence[Path]) -> list[Old]:
    """Return the configurations of some files. Files that hold different sections of one ROAR run become one.

    InvalidStudyError: a file is not there, cannot be read safely, is no configuration of the reference system, or has
        misspelt keys. The message lists all problems.
    """
    single = [Old((path,), tree, dict.fromkeys(tree, path)) for path in paths for tree in [_loaded(path)]]
    problems = [line for old in single for line in _misspelt(old)]
    if problems:
        raise InvalidStudyError("\n".join(problems))
    together: list[Old] = []
    for old in single:
        whole = next((one for one in together if _complete_one_another(one, old)), None)
        if whole is None:
            together.append(old)
        else:
            together[together.index(whole)] = _joined(whole, old)
    return together


def _complete_one_another(one: Old, other: Old) -> bool:
    """Return whether two files hold different sections of one ROAR run.

    InvalidStudyError: they do, but they differ in the rest.
    """
    sections = [{name for name in ROAR if old.tree.get(name)} for old in (one, other)]
    if not all(sections) or sections[0] & sections[1] or any(old.tree.get(LERF) for old in (one, other)):
        return False
    both = sorted((one.tree.keys() & other.tree.keys()) - {"desc", *ROAR})
    if differing := [name for name in both if one.tree[name] != other.tree[name]]:
        raise InvalidStudyError(
            f"{other.paths[0]}: {differing[0]}: is not that of {one.paths[0]}, although the two files hold sections of "
            "one run; make it the same in both, or convert whole files one by one"
        )
    return True


def _joined(one: Old, other: Old) -> Old:
    tree = other.tree | one.tree
    if descriptions := list(dict.fromkeys(str(old.tree["desc"]) for old in (one, other) if old.tree.get("desc"))):
        tree["desc"] = " ".join(descriptions)
    return Old((*one.paths, *other.paths), tree, other.files | one.files, [*one.lines, *other.lines])


def _loaded(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InvalidStudyError(no_such_file(path))
    try:
        tree = read_yaml(path.read_bytes(), _TAGS)
    except YamlTextError as error:
        raise InvalidStudyError(f"{path}{f':{error.line}' if error.line else ''}: {error}") from None
    if not isinstance(tree, dict) or not any(isinstance(tree.get(name), dict) for name in (*ROAR, LERF)):
        holds = (
            ", ".join(key_shown(str(key)) for key in list(tree)[:5]) if isinstance(tree, dict) else type(tree).__name__
        )
        raise InvalidStudyError(
            f"{path}: is no configuration of the ROAR reference system: it holds {holds or 'nothing'}; expected "
            f"{', '.join(ROAR)}, or {LERF}"
        )
    return tree


def _path_of(loader: Any, node: Any) -> str:
    parts = loader.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else []
    if not parts or not all(isinstance(part, str) for part in parts):
        raise YamlTextError(
            "os.path.join takes a list of texts here, such as [runs/x, model.pth]", node.start_mark.line + 1
        )
    return os.path.join(*parts)  # noqa: PTH118  texts, as the old file has them


_PYTHON = "tag:yaml.org,2002:python/"
_TAGS = {
    f"{_PYTHON}object/apply:os.path.join": _path_of,
    f"{_PYTHON}tuple": lambda loader, node: loader.construct_sequence(node),
}
"""Tags of these files that are understood without running anything."""


def _misspelt(old: Old) -> Iterator[str]:
    """Yield a sentence for each key that is nearly a known one; note the other unknown keys as without counterpart."""
    for key, value, known in _places(old):
        name = key.rpartition(".")[2]
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
        if near and not old.has(f"{key.rpartition('.')[0]}.{near[0]}".lstrip(".")):
            yield (f"{old.paths[0]}: {key_shown(key)}: unknown key; did you mean '{near[0]}'? Nothing was written")
        else:
            why = "unknown key, which the reference system does not read, either"
            old.lines.append(Line(key, value, "", why))


def _places(old: Old) -> Iterator[tuple[str, Any, Sequence[str]]]:
    """Yield each key of the file whose name must be a known one, its value, and the names that are known there."""
    for name, section in old.tree.items():
        yield str(name), section, TOP
        if name not in SECTIONS or not isinstance(section, dict):
            continue
        for key, value in section.items():
            yield f"{name}.{key}", value, SECTIONS[name]
            if key == "model" and isinstance(value, dict):
                yield from ((f"{name}.model.{each}", held, MODEL) for each, held in value.items())


def _keys(tree: dict[str, Any], before: str = "") -> Iterator[str]:
    """Yield the dotted keys of a tree in order, with those of the mappings in it."""
    for name, value in tree.items():
        yield f"{before}{name}"
        if isinstance(value, dict):
            yield from _keys(value, f"{before}{name}.")
