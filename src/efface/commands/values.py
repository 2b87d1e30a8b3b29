"""Kinds of words on the command line, and how a shell completes them. No torch is imported."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from efface.plug import words


class StudyFile(click.ParamType[Any]):
    """The path of a study's YAML file, or of a folder. A shell completes YAML files and folders."""

    name = "study"

    def __init__(self, made: Callable[[str], Any] = Path) -> None:
        self.made = made

    def convert(self, value: Any, _parameter: Any, _context: Any) -> Any:
        """Return the word as a path."""
        return self.made(value)

    def shell_complete(self, _context: Any, _parameter: Any, incomplete: str) -> list[CompletionItem[str]]:
        """Return the YAML files that begin so, and a request for folders."""
        return study_files(incomplete)


class Override(click.ParamType[str]):
    """A word `key=value`."""

    name = "key=value"


class MetricNames(click.ParamType[Any]):
    """Names of metrics with commas or blanks between them. A shell completes the last of them."""

    name = "metrics"

    def convert(self, value: Any, _parameter: Any, _context: Any) -> Sequence[str]:
        """Return the names."""
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else tuple(value)

    def shell_complete(self, _context: Any, _parameter: Any, incomplete: str) -> list[CompletionItem[str]]:
        """Return the names of efface's metrics that begin as the last name does, after those that stand before it."""
        before, comma, last = incomplete.rpartition(",")
        taken = before.split(",")
        names = (name for name in words.index("metric") if name.startswith(last) and name not in taken)
        return [CompletionItem(f"{before}{comma}{name}") for name in names]


class PlugInName(click.ParamType[str]):
    """The short word of a plug-in of efface, or a dotted path."""

    name = "name"

    def shell_complete(self, _context: Any, _parameter: Any, incomplete: str) -> list[CompletionItem[str]]:
        """Return the short words that begin so."""
        every = sorted({word for kind in words.KINDS for word in words.index(kind)})
        return [CompletionItem(word) for word in every if word.startswith(incomplete)]


class StartOf(click.ParamType[str]):
    """Data or a network of a new study: a short word, or one with a name or path behind it. A shell completes words.

    kind: kind of plug-in. beside: further words.
    """

    name = "word"

    def __init__(self, kind: str, beside: Sequence[str] = ()) -> None:
        self.kind, self.beside = kind, beside

    def shell_complete(self, _context: Any, _parameter: Any, incomplete: str) -> list[CompletionItem[str]]:
        """Return the words that begin so."""
        every = (*self.beside, *words.index(self.kind))
        return [CompletionItem(word) for word in every if word.startswith(incomplete)]


def study_files(incomplete: str) -> list[CompletionItem[str]]:
    """Return the YAML files whose path begins with this text, and a request for folders.

    The request stands first: bash then forgets it if there are files, and the other shells take both.
    """
    folder, slash, start = incomplete.rpartition("/")
    place = Path(folder or slash or ".")
    found = sorted(place.iterdir()) if place.is_dir() else []
    names = [each.name for each in found if each.suffix in (".yml", ".yaml") and each.name.startswith(start)]
    files = [CompletionItem(f"{folder}{slash}{name}") for name in names if start[:1] == "." or name[0] != "."]
    return [CompletionItem(incomplete, type="dir"), *files]
