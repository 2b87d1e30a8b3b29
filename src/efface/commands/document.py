"""The one JSON document that `--json` writes to stdout. Everything else that is printed goes to stderr."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from efface import __version__
from efface.commands.running import Progress

FORM = 1
"""Number of the form of the documents. It rises when a key goes or changes its meaning."""


def documented(command: str, progress: Progress, work: Callable[[], int]) -> int:
    """Do the work, write the facts that it collected, and return the exit status.

    The document begins with the keys that every document has: `form`, `efface`, `command`, `status` and `problems`.
    """
    with _only_on_stderr() as stdout:
        status = work()
        head = {"form": FORM, "efface": __version__, "command": command, "status": status, "problems": progress.said}
        write(head | (progress.facts or {}), stdout)
    return status


def answer(command: str, facts: dict[str, Any]) -> int:
    """Write the document of a command that cannot fail, and return its exit status."""
    return documented(command, Progress(facts=facts), lambda: 0)


def write(document: Any, file: Any) -> None:
    """Write a document. Numbers that are not finite become null, for JSON has none."""
    file.write(json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n")
    file.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):  # noqa: PLR0124  NaN
        return None
    return value


@contextlib.contextmanager
def _only_on_stderr() -> Iterator[Any]:
    """Send what is printed to stderr, also by worker processes and C code. Yield the true stdout."""
    stdout = sys.stdout
    stdout.flush()
    if stdout is not sys.__stdout__:  # a stand-in, which no other process knows
        with contextlib.redirect_stdout(sys.stderr):
            yield stdout
        return
    own = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(own), "w", encoding="utf-8") as file, contextlib.redirect_stdout(sys.stderr):
            yield file
    finally:
        os.dup2(own, 1)
        os.close(own)
