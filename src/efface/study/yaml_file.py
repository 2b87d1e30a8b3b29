"""Safe reading of a study's YAML file into plain values, with `key=value` overrides."""

import copy
import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from efface.base.shown import key_shown, shown
from efface.plug import moved
from efface.study.yaml_text import LARGEST, YamlTextError, read_yaml

LONGEST_KEY = 300
"""Characters of the key of an override."""


class InvalidStudyError(ValueError):
    """A study is wrong. The message lists all problems, one on each line."""


def load(path: Path) -> Any:
    """Return the content of a YAML file, read safely. `1e-3` is a number."""
    if not path.is_file():
        raise InvalidStudyError(no_such_file(path))
    try:
        return read_yaml(path.read_bytes())
    except YamlTextError as error:
        if old := reference_form(_top_level(path), path):
            raise InvalidStudyError(f"{path}: {old}") from None
        line = f":{error.line}" if error.line else ""
        raise InvalidStudyError(f"{path}{line}: {error}") from None


def no_such_file(path: Path) -> str:
    """Return a message on a file that is not there, with the names of files that may be meant."""
    if path.is_dir():
        return _folder(path)
    files = sorted(str(file) for file in path.parent.glob("*.yml")) if path.parent.is_dir() else []
    near = difflib.get_close_matches(str(path), files, n=1) or files[:5]
    place = "" if path.is_absolute() else f" in {Path.cwd()}"
    return f"{path}: no such file{place}" + (f"; there is {', '.join(near)}" if near else "")


def _folder(path: Path) -> str:
    """Return a message on a folder in the place of a study's file."""
    from efface.plug.given import names_given  # imports torch, which takes seconds

    study = path / "study.yml"
    if not study.is_file():
        files = sorted(map(str, path.glob("*.yml")))
        return f"{path}: is a folder, expected the YAML file of a study" + (f", such as {files[0]}" if files else "")
    try:
        from_python = names_given(study.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        from_python = False
    remedy = (
        f"make the same call of efface.evaluate with out={str(path)!r}" if from_python else f"give the study: {study}"
    )
    return (
        f"{path}: is the folder of a run, expected the YAML file of a study; {remedy}. The commands report, status and "
        "compare take the folder itself"
    )


def override(tree: Any, text: str, path: Path) -> str:
    """Set a key of the tree by `key=value`, and return the key. Entries of a list are addressed by name or number."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidStudyError(f"{shown(text)}: an override has the form key=value, such as fit.epochs=2 or repeats=1")
    try:
        parsed = read_yaml(value)
    except YamlTextError as error:
        raise InvalidStudyError(f"override {key_shown(key)}: not a valid YAML value ({error}); quote it") from None
    put(tree, key, parsed, path)
    return key


def put(tree: Any, key: str, value: Any, path: Path) -> None:
    """Set a key such as fit.optimizer.kwargs.lr. Entries of a list are addressed by name or number.

    If a YAML anchor is used in several places, only the place that the key names changes. If the key begins with `x-`,
    all uses of the anchor by `*` change. Copies made with `<<` do not change.

    path: file or variant that the messages name.
    """
    key = moved.study_key(_checked_key(key, path))
    top, (*parents, last), shared = tree, key.split("."), key.startswith("x-")
    if shared and not parents:
        raise InvalidStudyError(
            f"{path}: override {key}: it replaces a whole shared anchor, which would change no use of the anchor; set "
            "the keys below it"
        )
    for part, following in zip(parents, [*parents, last][1:], strict=True):
        at = _place(tree, part)
        if at is None:
            if not isinstance(tree, dict) or shared:
                raise InvalidStudyError(f"{path}: override {key_shown(key)}: there is no {shown(part)}{_parts(tree)}")
            tree[at := part] = {}
        if isinstance(tree[at], str) and following == "kwargs":  # expand the short form, for it gets kwargs
            tree[at] = {"name" if tree is top.get("metrics") else "call": tree[at]}
        if not shared:
            tree[at] = copy.copy(tree[at])
        tree = tree[at]
    if isinstance(tree, list):
        at = _place(tree, last)
        if at is None:
            raise InvalidStudyError(f"{path}: override {key_shown(key)}: there is no {shown(last)}{_parts(tree)}")
        tree[at] = value
    elif isinstance(tree, dict):
        tree[last] = value
    else:
        raise InvalidStudyError(
            f"{path}: override {key_shown(key)}: {shown('.'.join(parents))} is not a section, it holds {shown(tree)}"
        )


def _parts(tree: Any) -> str:
    """Return in words how the entries of a list are addressed; "" for anything else."""
    if not isinstance(tree, list):
        return ""
    names = [str(entry.get("name") if isinstance(entry, dict) else entry) for entry in tree[:6]]
    numbers = f"a number from 0 to {len(tree) - 1}" if tree else "nothing, for it is empty"
    return f" in the list; expected {numbers}" + (f", or a name: {', '.join(map(key_shown, names))}" if names else "")


def _checked_key(key: str, path: Path) -> str:
    if len(key) > LONGEST_KEY or not key.isprintable():
        raise InvalidStudyError(
            f"{path}: override {shown(key)}: is no key of a study; expected words with points, such as fit.epochs=2"
        )
    return key


def reference_form(keys: Collection[str], path: Path) -> str:
    """Return a message if the keys are those of a configuration of the ROAR reference system, else "".

    path: the file, for the command that the message names.
    """
    old = [key for key in ("extract_cams", "retrain_cls", "train_cls", "pixel_perturbation_analysis") if key in keys]
    if not old:
        return ""
    return (
        f"{old[0]}: this is a configuration of the ROAR reference system; 'efface convert {path}' writes its study. "
        "There, one list "
        "'attribution_methods:' at the top level, with the same name, method and kwargs, serves every stage; "
        "'train_cls' is 'model' and 'fit', 'percentiles' are 'fractions', 0 to 1: see configs/cifar10_resnet8.yml"
    )


def _top_level(path: Path) -> list[str]:
    """Return the top-level keys of a file that cannot be read safely. Its tags are not constructed."""
    try:
        text = path.read_bytes()[:LARGEST].decode(errors="replace")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return []
    return [str(key.value) for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []


def _place(tree: Any, part: str) -> Any:
    """Return the key or index of a part, by number or by the name of its entry; None if there is no such part."""
    if isinstance(tree, list):
        if part.isascii() and part.isdigit() and len(part) < 10 and int(part) < len(tree):
            return int(part)
        names = [entry.get("name") if isinstance(entry, dict) else entry for entry in tree]
        return names.index(part) if part in names else None
    return part if isinstance(tree, dict) and tree.get(part) is not None else None
