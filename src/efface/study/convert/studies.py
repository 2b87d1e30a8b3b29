"""A study from an old configuration: its keys in order, as commented YAML, and what became of each old key."""

import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from efface.study.convert.methods import fractions_of, methods_of, metrics_of
from efface.study.convert.networks import data_of, fill_of, network_of
from efface.study.convert.old import LERF, ROAR, Line, Old
from efface.study.convert.training import trainings_of
from efface.study.yaml_file import InvalidStudyError

WIDTH = 120
_ADDED = {
    "attribution_methods": "A random ranking is added. The verdicts compare the methods with it.",
    "fit": "crop, flip and keep are fixed in the code of the reference system.",
    "explain": "The class that the network predicts, as there.",
    "post": "The largest value over channels ranks a pixel, as there.",
    "unit": "All channels of a pixel are removed together, as there.",
    "imputer": "The fill of removed pixels, as there.",
    "repeats": "Trainings of each point. The reference system trains once, and has no interval. A verdict needs three.",
    "metrics": "The value relative_change judges, as there.",
}
"""Keys that the old file does not hold, with what they mean."""


@dataclass(frozen=True)
class Converted:
    """A study from old files.

    paths: the old files. name: file name of the study. text: its YAML. lines: what each old key became.
    commands: those that try the study and run it.
    """

    paths: tuple[Path, ...]
    name: str
    text: str
    lines: tuple[Line, ...]
    commands: tuple[str, str]


def converted(old: Old, folder: Path) -> list[Converted]:
    """Return the studies of a configuration: one for ROAR, one for LeRF, or both if the file has both.

    folder: where the studies will lie; their headers name it.

    InvalidStudyError: values of the file are wrong or missing. The message lists all of them.
    """
    parts = []
    if any(old.get(name) for name in ROAR):
        parts.append({key: value for key, value in old.tree.items() if key != LERF})
    if old.get(LERF):
        parts.append({key: value for key, value in old.tree.items() if key not in ROAR})
    made, problems = [], list[str]()
    for number, tree in enumerate(parts):
        lines = [line for line in old.lines if line.key.partition(".")[0] in tree]
        part = Old(old.paths, tree, old.files, lines)
        study = _study(part)
        problems += part.problems
        name = f"{old.paths[0].stem}{'_lerf' * number}.yml"
        commands = _commands(folder / name, _names(study))
        text = _text(part, study, commands)
        made.append(Converted(old.paths, name, text, tuple(part.in_order()), commands))
    if problems:
        raise InvalidStudyError("\n".join(dict.fromkeys(problems)))
    return made


def _names(study: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of a study's metrics."""
    entries = study.get("metrics", ())
    return tuple(entry["name"] if isinstance(entry, dict) else entry for entry in entries)


def _commands(path: Path, metrics: Sequence[str]) -> tuple[str, str]:
    """Return the commands that try a study and run it."""
    stage, only = ("measure", f" --metrics {','.join(metrics)}") if metrics else ("extract", "")
    study = shlex.quote(str(path))
    return f"efface check {study}", f"efface {stage} {study}{only}"


def _study(old: Old) -> dict[str, Any]:
    """Return the keys of the study in order; note in `old` what became of each old key."""
    old.became("desc", "a comment at the head of the study")
    out = old.text("outdir", "the folder of the run")
    old.became("outdir", f"out: {out}")
    sections = [name for name in (*ROAR, LERF) if isinstance(old.get(f"{name}.model"), dict)]
    if not sections:
        old.wrong(
            f"{next(name for name in (*ROAR, LERF) if old.get(name))}.model", "arch and what else the network needs"
        )
    study = {"out": out, "data": data_of(old)} | network_of(old, sections) | trainings_of(old)
    study |= {"explain": "predicted", "attribution_methods": methods_of(old), "post": ["channel_max"]}
    study |= {"unit": "pixel", "imputer": fill_of(old)}
    if metrics := metrics_of(old):
        judged = {"judge_by": "relative_change"} if LERF in old.tree else {}
        study["metrics"] = [{"name": name} | judged for name in metrics] if judged else metrics
    if fractions := fractions_of(old):
        study["fractions"] = fractions
    if LERF not in old.tree and metrics:
        study["repeats"] = 3
    if not study["attribution_methods"]:
        where = LERF if LERF in old.tree else "extract_cams"
        old.wrong(f"{where}.attribution_methods", "a list of entries with name, method and kwargs")
    return {key: value for key, value in study.items() if value not in ([], None)}


def _text(old: Old, study: dict[str, Any], commands: Sequence[str]) -> str:
    """Return the study as YAML. Above each key stands where it comes from."""
    desc = old.get("desc")
    head = [str(desc)] if desc else []
    files = " and ".join(str(path) for path in old.paths)
    head.append(f"Made by 'efface convert' from {files}, a configuration of the ROAR reference system.")
    lines = [*_comments(head), "#", *(f"#   {command}" for command in commands), "#"]
    for key, value in study.items():
        lines += [*_comments(_origin(old, key)), *_key(key, value)]
    none = [f"{line.key}: {line.why}." for line in old.in_order() if line.why and not line.became]
    if none:
        lines += ["#", "# Without a counterpart:", *_comments(none)]
    return "\n".join(lines) + "\n"


def _origin(old: Old, key: str) -> list[str]:
    """Return where a key comes from, and what differs, as sentences."""
    first = "method" if key == "attribution_methods" else key
    of_key = [
        line
        for line in old.in_order()
        if line.became.partition(":")[0].partition(".")[0] in (key, first) and not line.again
    ]
    sentences = [f"From {', '.join(dict.fromkeys(line.key for line in of_key))}."] if of_key else []
    sentences += dict.fromkeys(line.why for line in of_key if line.why)
    added = _ADDED.get(key, "")
    if key == "metrics" and LERF not in old.tree:
        added = ""
    if key in ("mean", "std"):
        added = "" if key == "std" else "The colours by which the reference system normalises."
    return [" ".join([*sentences, *([added] if added else [])])] if sentences or added else []


def _comments(sentences: Sequence[str]) -> list[str]:
    return [
        line
        for sentence in sentences
        for line in textwrap.wrap(" ".join(sentence.split()), WIDTH, initial_indent="# ", subsequent_indent="# ")
    ]


def _key(key: str, value: Any) -> list[str]:
    """Return a key with its value: in one line if it fits, else a line for each key or entry below it."""
    if key not in ("fit", "refit", "attribution_methods", "metrics") and len(line := f"{key}: {_flow(value)}") <= WIDTH:
        return [line]
    if isinstance(value, list):
        return [f"{key}:", *(f"  - {_flow(entry)}" for entry in value)]
    return [f"{key}:", *(f"  {name}: {_flow(part)}" for name, part in value.items())]


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1_000_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()
