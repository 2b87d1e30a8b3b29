"""`efface cite [STUDY]`: a BibTeX entry of efface, and those of the papers behind a study.

The study is read as plain values. No code that it names runs, so the folder of any run may be given.
"""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from efface import __version__
from efface.commands.references import bibtex, cited
from efface.commands.running import Progress, answered
from efface.commands.stages import overrides_argument, study_argument
from efface.plug import docstrings, words

AUTHORS, YEAR = "efface developers", "2026"
TITLE = "efface: a benchmark of attribution maps for image classifiers"
DEFAULT_FILL = "channel_mean"
"""The fill of a study without `imputer`."""


@click.command(
    params=[
        study_argument("A study, or the folder of a run. Without it: efface alone.", required=False),
        overrides_argument(),
    ]
)
def cite(study: Path | None, overrides: Sequence[str]) -> int:
    """Print BibTeX of efface, and of the papers behind a study.

    Each paper behind a method, metric, fill, data set or network has one entry. The comment above it says what it is
    cited for. A comment at the end names what has no known reference, such as functions of your own.
    """

    def work(_progress: Progress) -> Sequence[str]:
        parts = [own_entry()]
        if study is not None:
            named = list(dict.fromkeys(plug_ins(study, overrides)))
            used_by: dict[str, dict[str, None]] = {}
            for kind, path in named:
                for key in papers(path) if kind else ():
                    used_by.setdefault(key, {})[words.word_of(path)] = None
            parts.append(bibtex(used_by))
            if own := [path for kind, path in named if not kind]:
                parts.append(f"% no reference is known of: {', '.join(own)}")
        click.echo("\n\n".join(part for part in parts if part))
        return ()

    return answered(work, "cite", is_short=True)


def own_entry() -> str:
    """Return the entry of efface itself."""
    lines = {"author": f"{{{AUTHORS}}}", "title": f"{{{TITLE}}}", "year": YEAR, "note": f"Version {__version__}"}
    return "@misc{efface,\n" + ",\n".join(f"  {name} = {{{value}}}" for name, value in lines.items()) + "\n}"


def papers(path: str) -> Iterator[str]:
    """Return the keys of the papers that the docstring of a plug-in of efface names as its source."""
    return cited(docstrings.said(docstrings.docstring(path), "Source"))


def plug_ins(path: Path, overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield kind and path of what a study names; the kind of a function that is not of efface is "".

    InvalidStudyError: the file cannot be read.
    """
    from efface.plug import moved
    from efface.study.recommended_metrics import expanded
    from efface.study.yaml_file import InvalidStudyError, load, override, put

    file = path / "study.yml" if path.is_dir() else path
    tree = load(file)
    if not isinstance(tree, dict):
        raise InvalidStudyError(f"{file}: is no study; expected keys like 'data:' and 'model:'")
    tree = moved.study(tree)
    for text in overrides:
        override(tree, text, file)
    variants = tree.pop("variants", None) or {}
    tree.pop("claims", None)  # they name entries of the study
    for changes in [{}, *variants.values()]:
        part = {"imputer": DEFAULT_FILL} | copy.deepcopy(tree)
        for key, value in (changes or {}).items():
            put(part, key, value, file)
        yield from _named(expanded(part))


_KEYS = {
    "method": "method",
    "base": "method",
    "metrics": "metric",
    "metric": "metric",
    "imputer": "imputer",
    "attack": "attack",
    "regularizers": "regularizer",
    "augment": "augmentation",
    "preset": "preset",
    "unit": "unit",
    "data": "data",
    "model": "model",
}
"""The keys below which a plug-in of each kind stands."""
_NO_PLUG_IN = ("pixel", "feature")


def _named(tree: Any, kind: str = "") -> Iterator[tuple[str, str]]:
    """Yield kind and path of each plug-in in a part of a study. kind: of what stands directly here."""
    if isinstance(tree, str) and kind and tree not in _NO_PLUG_IN:
        yield _found(kind, tree)
    elif isinstance(tree, list):
        for each in tree:
            yield from _named(each, kind)
    elif isinstance(tree, dict):
        if kind == "metric":
            yield _found(kind, str(tree.get("metric") or tree.get("name")))
        elif kind and isinstance(tree.get("call"), str):
            yield _found(kind, tree["call"])
        for key, value in tree.items():
            of_a_term = key == "preset" and "call" in tree  # the name of published settings, no plug-in
            if (kind, key) != ("metric", "metric") and not of_a_term:
                yield from _named(value, "" if key in ("call", "kwargs") else _KEYS.get(str(key), ""))


def _found(kind: str, word: str) -> tuple[str, str]:
    """Return kind and path of a word; the kind of a path that leads elsewhere is ""."""
    path = words.index(kind).get(word) or (words.expand(kind, word) if "." in word else word)
    return words.name_of(path).partition(".")[0], path
