"""The work of a command, and what it says of errors: one sentence each, and the exit status."""

import contextlib
import importlib
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STOPPED = "efface: stopped; the same command continues from here"


@dataclass(frozen=True)
class Asked:
    """What a command line asks of a stage.

    stage: its word. paths: files of studies, or folders of runs. overrides: `key=value`. metrics: names; empty: all.
    out: folder of the page of `compare`. trust: read the study in a folder, and run its code. remove: of `prune`.
    as_json: write a document. against: method with which the report compares all others.
    """

    stage: str
    paths: tuple[Path, ...]
    overrides: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    out: Path | None = None
    trust: bool | None = None
    remove: bool = False
    as_json: bool = False
    against: str | None = None


@dataclass
class Progress:
    """What is known of a command while it works.

    out: folder of the study, once it is read. facts: the document of `--json`; None: it is not asked for. is_short: see
    `answered`. said: what was printed on stderr.
    """

    out: Path | None = None
    facts: dict[str, Any] | None = None
    is_short: bool = False
    said: list[str] = field(default_factory=list)

    def tell(self, lines: str) -> None:
        """Print lines on stderr, and keep them for the document."""
        print(lines, file=sys.stderr)
        self.said += [line.removeprefix("efface: ") for line in lines.splitlines()]


Work = Callable[[Progress], Sequence[str]]
"""The work of a command. It returns sentences on what failed."""


def run(asked: Asked) -> int:
    """Run a stage and return the exit status, see `efface.__main__.main`."""
    _set_places(asked)
    return answered(lambda progress: worked(asked, progress), asked.stage, asked.paths, as_json=asked.as_json)


def answered(
    work: Work, what: str, paths: Sequence[Path] = (), *, as_json: bool = False, is_short: bool = False
) -> int:
    """Do the work, say what failed, and return the exit status.

    what: word of the command, for messages. paths: files of studies that the work reads. as_json: write the facts that
    the work collects as one JSON document to stdout, and all messages to stderr. is_short: the work reads files alone,
    so torch is not imported to stop it in an orderly way.
    """
    if not as_json:
        return _answered(work, what, paths, Progress(is_short=is_short))
    from efface.commands.document import documented

    progress = Progress(facts={})
    return documented(what, progress, lambda: _answered(work, what, paths, progress))


def _answered(work: Work, what: str, paths: Sequence[Path], progress: Progress) -> int:
    try:
        return _told(work, what, paths, progress)
    except KeyboardInterrupt:  # also while torch is imported
        progress.tell(STOPPED)
        return 130


def _told(work: Work, what: str, paths: Sequence[Path], progress: Progress) -> int:
    from efface.base.shown import cut
    from efface.study.yaml_file import InvalidStudyError

    try:
        with _stoppable(progress):  # the study's own modules are imported inside
            failures = work(progress)
    except InvalidStudyError as error:
        progress.tell(cut(str(error)))
        return 2
    except (ValueError, OSError) as error:
        progress.tell(f"efface: {cut(_of_study(paths, _sentence(error)))}")
        return 1
    except Exception as error:  # noqa: BLE001  from a user's loss or network, torch or the GPU; reported in one line
        progress.tell(f"efface: {cut(_unexpected(error, what, progress.out))}")
        return 1
    for failure in failures:
        progress.tell(f"efface: failed: {cut(str(failure))}")
    if failures:
        log = "failures.log" if progress.out is None else progress.out / "failures.log"
        progress.tell(f"efface: {len(failures)} failed (traces in {log}); all other results are kept")
    return 1 if failures else 0


def _stoppable(progress: Progress) -> contextlib.AbstractContextManager[None]:
    """Return the context in which a Ctrl-C ends the work in an orderly way."""
    if progress.is_short:
        return contextlib.nullcontext()
    from efface.execute import stoppable  # it imports torch, which takes seconds

    return stoppable()


def worked(asked: Asked, progress: Progress) -> Sequence[str]:
    """Do the work of a stage, and return sentences on what failed."""
    from efface.study.study import read
    from efface.study.yaml_file import InvalidStudyError

    told: dict[str, Any] = {} if progress.facts is None else {"facts": progress.facts}
    if asked.stage == "compare":
        _stage("compare")(asked.paths, asked.out, trust=bool(asked.trust))
        return ()
    if asked.stage == "prune":
        _stage("prune")([read(path, asked.overrides) for path in asked.paths], remove=asked.remove)
        return ()
    (path,) = asked.paths
    if asked.trust is None or not path.is_dir():
        study = read(path, asked.overrides)
        if asked.against is not None:
            _refuse_no_row(study, path, asked.against)
            study = read(path, (*asked.overrides, f"reference={json.dumps(asked.against)}"))
    elif asked.overrides:
        raise InvalidStudyError(
            f"{path}: a folder is read as it is, so {asked.overrides[0]} has no place; give the study's YAML file"
        )
    elif asked.trust:
        study = importlib.import_module("efface.stages.page.comparison").study_of(path)
        if asked.against is not None:
            raise InvalidStudyError(f"{path}: --against is for a study's YAML file, or for a folder without --trust")
    else:
        of_folder = importlib.import_module("efface.stages.page.folders")
        if asked.against is not None:
            told["against"] = asked.against
        getattr(of_folder, f"{asked.stage}_of_folder")(path, asked.metrics, **told)
        return ()
    progress.out = study.out
    if asked.stage not in ("status", "report") and os.environ.get("OMP_NUM_THREADS") is None:
        os.environ["OMP_NUM_THREADS"] = "1"  # the workers read it: N processes of one thread each
    failures: Sequence[str] = _stage(asked.stage)(study, asked.metrics, **told)
    return failures


def _refuse_no_row(study: Any, path: Path, against: str) -> None:
    """InvalidStudyError: the study has no method of this name."""
    from efface.study.yaml_file import InvalidStudyError

    rows = dict.fromkeys(name for parts in study.parts().values() for part in parts for name in part.map_names())
    if against not in rows:
        raise InvalidStudyError(f"{path}: --against: there is no method '{against}'; there are {', '.join(rows)}")


def _stage(word: str) -> Callable[..., Any]:
    """Return the function of a stage: `efface.stages` has a module for each stage, with a function of the same name."""
    function: Callable[..., Any] = getattr(importlib.import_module(f"efface.stages.{word}"), word)
    return function


def _set_places(asked: Asked) -> None:
    """Let Python find modules in the current folder, such as a method of one's own.

    Where only folders are read by their plans, it looks neither there nor in these folders: nothing in them may run.
    """
    if asked.trust is None or asked.trust or not all(path.is_dir() for path in asked.paths):
        add_current_folder()
        return
    left_out = {folder.resolve() for folder in (Path.cwd(), *asked.paths)}
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() not in left_out]


def add_current_folder() -> None:
    """Let Python find modules in the current folder first."""
    sys.path.insert(0, str(Path.cwd()))


def _unexpected(error: Exception, what: str, out: Path | None) -> str:
    """Return a sentence on an error of code that is not efface's, and write its trace into the run's folder."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    if out is not None and out.is_dir() and not (out / "failures.log").is_symlink():
        with (out / "failures.log").open("a") as file:
            file.write(f"{what}\n{traceback.format_exc()}\n")
        where += f", trace in {out / 'failures.log'}"
    text = " ".join(str(error).split())[:400]
    return f"{what} fails: {type(error).__name__}: {text} ({where})"


def _sentence(error: Exception) -> str:
    """Return an error as a sentence. Errors of efface are sentences; for errors of the system, name file and reason."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file of this run'}: {error.strerror.lower()}; finished work is kept"
    return str(error)


def _of_study(paths: Sequence[Path], sentences: str) -> str:
    """Return sentences that begin with a key of the study with the study's file before them."""
    from efface.study.study import Study

    if len(paths) != 1 or paths[0].is_dir():
        return sentences
    lines = sentences.split("\nefface: ")
    keys = Study.model_fields
    return "\nefface: ".join(f"{paths[0]}: {line}" if re.split("[.:]", line)[0] in keys else line for line in lines)
