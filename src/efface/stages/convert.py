"""Stage convert: studies from configurations of the ROAR reference system."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from efface.base.shown import shown
from efface.stages.run.progress import say
from efface.study.convert import Converted, Line, converted, read_old
from efface.study.study import check
from efface.study.yaml_file import InvalidStudyError
from efface.study.yaml_text import read_yaml

WIDTH = 120
_LONGEST = 70
"""Characters of a value that is shown beside its key."""


def convert(paths: Sequence[Path], out: Path) -> None:
    """Write a study for each configuration, and say what each of its keys became.

    paths: configurations of the reference system. out: folder of the studies.

    InvalidStudyError: a configuration is wrong, or a study of this name is there; then nothing is written.
    ValueError: a study was written, but it names something that cannot be used here.
    """
    made = [study for old in read_old(paths) for study in converted(old, out)]
    _refuse_what_is_there(made, out)
    out.mkdir(parents=True, exist_ok=True)
    refused = []
    for study in made:
        path = out / study.name
        with path.open("x", encoding="utf-8") as file:  # an error if it was made in the meantime
            file.write(study.text)
        for line in _said(path, study):
            say(line)
        try:
            check(read_yaml(study.text), path)
        except InvalidStudyError as error:
            refused.append(f"{path}: is written, but cannot be used yet. {error}")
    if refused:
        raise ValueError("\nefface: ".join(refused))


def _refuse_what_is_there(made: Sequence[Converted], out: Path) -> None:
    """InvalidStudyError: a file of a study is there already, or two studies have the same name."""
    problems = []
    for number, study in enumerate(made):
        path = out / study.name
        if path.exists() or path.is_symlink():
            problems.append(f"{path}: is there already, and convert overwrites nothing; give another folder with --out")
        if any(other.name == study.name for other in made[:number]):
            problems.append(f"{path}: two of the files would have this name; convert one of them with another --out")
    if problems:
        raise InvalidStudyError("\n".join(dict.fromkeys(problems)))


def _said(path: Path, study: Converted) -> list[str]:
    """Return what became of each key, in lines, and the commands that follow."""
    lines = [f"{' and '.join(map(str, study.paths))}: is now {path}"]
    lines += [wrapped for line in study.lines for wrapped in _wrapped(line)]
    none = sum(bool(line.why and not line.became) for line in study.lines)
    lines.append(f"{len(study.lines)} keys, {none} of them without a counterpart; the file says what was added")
    return [*lines, *(f"{when}: {command}" for when, command in zip(("next", "then"), study.commands, strict=True))]


def _wrapped(line: Line) -> list[str]:
    why = f"{line.why[0].upper()}{line.why[1:]}".rstrip(".") + "." if line.why else ""
    nothing = f"has no counterpart. {why}" if why else "is empty"
    became = f"-> {line.became}. {why}" if line.became else nothing
    held = shown(line.value)
    held = f" {held}" if line.value is not None and not isinstance(line.value, dict) and len(held) <= _LONGEST else ""
    text = " ".join(f"{line.key}:{held} {became}".split())
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="      ")
