"""`efface cite [STUDY]`: a BibTeX entry of efface, and those of the papers behind a study's methods and metrics.

The study is read as plain values. No code that it names runs, so the folder of any run may be given.
"""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from efface import __version__
from efface.commands.references import Reference, bibtex, merged, references
from efface.commands.running import Progress, answered
from efface.commands.stages import overrides_argument, study_argument
from efface.plug import docstrings, words

AUTHORS, YEAR = "efface developers", "2026"
TITLE = "efface: a benchmark of attribution maps for image classifiers"


@click.command(
    params=[
        study_argument("A study, or the folder of a run. Without it: efface alone.", required=False),
        overrides_argument(),
    ]
)
def cite(study: Path | None, overrides: Sequence[str]) -> int:
    """Print BibTeX of efface, and of the papers behind the methods and metrics of a study.

    The entries have what the docstrings of efface say: authors, year, arXiv number or DOI, and titles where they stand
    there. Check them before you print them. Functions of your own are named in a comment.
    """

    def work(_progress: Progress) -> Sequence[str]:
        parts = [own_entry()]
        if study is not None:
            used = list(dict.fromkeys(plug_ins(study, overrides)))
            found = [each for kind, path in used if kind for each in papers(path)]
            parts.append(bibtex(merged(found)))
            if own := [path for kind, path in used if not kind]:
                parts.append(f"% no reference is known of: {', '.join(own)}")
        click.echo("\n\n".join(part for part in parts if part))
        return ()

    return answered(work, "cite", is_short=True)


def own_entry() -> str:
    """Return the entry of efface itself."""
    lines = {"author": f"{{{AUTHORS}}}", "title": f"{{{TITLE}}}", "year": YEAR, "note": f"Version {__version__}"}
    return "@misc{efface,\n" + ",\n".join(f"  {name} = {{{value}}}" for name, value in lines.items()) + "\n}"


def papers(path: str) -> list[Reference]:
    """Return the papers that the docstring of a plug-in of efface names as its source."""
    return list(references(docstrings.said(docstrings.docstring(path), "Source"), words.word_of(path)))


def plug_ins(path: Path, overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield kind and path of what a study names; the kind of a function that is not of efface is "".

    InvalidStudyError: the file cannot be read.
    """
    from efface.plug import moved
    from efface.study.yaml_file import InvalidStudyError, load, override, put

    file = path / "study.yml" if path.is_dir() else path
    tree = load(file)
    if not isinstance(tree, dict):
        raise InvalidStudyError(f"{file}: is no study; expected keys like 'data:' and 'model:'")
    tree = moved.study(tree)
    for text in overrides:
        override(tree, text, file)
    yield from _named(tree)
    for changes in (tree.get("variants") or {}).values():
        part = copy.deepcopy(tree)
        for key, value in (changes or {}).items():
            put(part, key, value, file)
        yield from _named(part)


_KEYS = {
    "method": "method",
    "base": "method",
    "metrics": "metric",
    "metric": "metric",
    "imputer": "imputer",
    "attack": "attack",
    "regularizers": "regularizer",
    "augment": "augmentation",
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
            if key not in ("variants", "claims", "metric") or not kind:
                yield from _named(value, "" if key in ("call", "kwargs") else _KEYS.get(str(key), ""))


def _found(kind: str, word: str) -> tuple[str, str]:
    """Return kind and path of a word; the kind of a path that leads elsewhere is ""."""
    path = words.index(kind).get(word) or (words.expand(kind, word) if "." in word else word)
    return words.name_of(path).partition(".")[0], path
