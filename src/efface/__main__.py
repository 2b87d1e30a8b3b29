"""efface STAGE STUDY [key=value ...]: a stage runs the unfinished earlier stages first, then its own work."""

import argparse
import faulthandler
import importlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

STAGES = {
    "check": "read the study, try every method on two images, print the plan and an estimate of time; keep nothing",
    "train": "train the network that is explained, and the second network where the study has one",
    "extract": "write the maps of every method into HDF5 files",
    "measure": "measure all metrics of the study, or those of --metrics, then write the report",
    "samples": "make images of the classes with the network, and keep them in HDF5",
    "visualize": "draw images, samples, denoised images and every method's maps, and show them in the report",
    "report": "write the report of what is measured so far",
    "all": "train, extract, measure and report",
    "status": "say what is done and what is left",
    "compare": "write the report of several studies, or folders of runs, side by side",
    "convert": "turn configurations of the ROAR reference system into studies, key by key",
    "prune": "list the files of runs that no given study needs, and remove them with --remove",
}


_STUDY = ("a YAML file, such as configs/digits.yml", "a YAML file, such as configs/digits.yml, or the folder of a run")
_TRUST = "read the study in a folder, and run the code that it names; default: the plan that was kept there"
_OF_FOLDERS = ("report", "status")
"""Stages that also take the folder of a run, as `compare` does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage and return the exit status.

    0: done. 1: a task or the stage failed. 2: the study or the command is wrong. 130: stopped by Ctrl-C. 129,
    130 or 143: a second signal ended the process at once.
    """
    options = _parser().parse_args(_options_first(sys.argv[1:] if arguments is None else arguments))
    _set_places(options)
    if sys.stderr is sys.__stderr__ and not faulthandler.is_enabled():
        faulthandler.enable()  # a crash of the interpreter shows the place in the code that caused it
    try:
        return _run(options)
    except KeyboardInterrupt:  # also while torch is imported
        print("efface: stopped; the same command continues from here", file=sys.stderr)
        return 130


def command(arguments: Sequence[str] | None = None) -> None:
    """Run one stage and end the process with its exit status. A Ctrl-C while Python ends leaves no trace of errors."""
    try:
        status = main(arguments)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a job in the background may ignore it
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _run(options: argparse.Namespace) -> int:
    # torch takes seconds to import, so help and wrong commands are handled first
    from efface.execute import stoppable
    from efface.shown import cut
    from efface.study.yaml_file import InvalidStudyError

    study = None
    try:
        only = options.metrics.replace(",", " ").split() if getattr(options, "metrics", None) else []
        with stoppable():  # the study's own modules are imported inside
            study = _study(options, only)
            if study is None:
                return 0
            if options.stage not in ("status", "report") and os.environ.get("OMP_NUM_THREADS") is None:
                os.environ["OMP_NUM_THREADS"] = "1"  # the workers read it: N processes of one thread each
            failures = _stage(options.stage)(study, only)
    except InvalidStudyError as error:
        print(cut(str(error)), file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"efface: {cut(_of_study(options, _sentence(error)))}", file=sys.stderr)
        return 1
    except Exception as error:  # noqa: BLE001  from a user's loss or network, torch or the GPU; reported in one line
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        if study is not None and study.out.is_dir() and not (study.out / "failures.log").is_symlink():
            with (study.out / "failures.log").open("a") as file:
                file.write(f"{options.stage}\n{traceback.format_exc()}\n")
            where += f", trace in {study.out / 'failures.log'}"
        text = " ".join(str(error).split())[:400]
        print(f"efface: {cut(f'{options.stage} fails: {type(error).__name__}: {text} ({where})')}", file=sys.stderr)
        return 1
    for failure in failures:
        print(f"efface: failed: {cut(str(failure))}", file=sys.stderr)
    if failures:
        print(
            f"efface: {len(failures)} failed (traces in {study.out / 'failures.log'}); all other results are kept",
            file=sys.stderr,
        )
    return 1 if failures else 0


def _study(options: argparse.Namespace, only: Sequence[str]) -> Any:
    """Return the study to work on; None after a command that has none: `compare`, or a stage on a folder's own plan."""
    from efface.study.study import read
    from efface.study.yaml_file import InvalidStudyError

    if options.stage == "compare":
        _stage("compare")(options.studies, options.out, trust=options.trust)
        return None
    if options.stage == "convert":
        _stage("convert")(options.studies, options.out)
        return None
    if options.stage == "prune":
        overrides = [word for word in options.studies if "=" in word]
        studies = [read(Path(word), overrides) for word in options.studies if "=" not in word]
        _stage("prune")(studies, remove=options.remove)
        return None
    if options.stage not in _OF_FOLDERS or not options.study.is_dir():
        return read(options.study, options.overrides)
    if options.overrides:
        raise InvalidStudyError(
            f"{options.study}: a folder is read as it is, so {options.overrides[0]} has no place; give the study's "
            "YAML file"
        )
    if options.trust:
        return importlib.import_module("efface.stages.page.comparison").study_of(options.study)
    getattr(importlib.import_module("efface.stages.page.folders"), f"{options.stage}_of_folder")(options.study, only)
    return None


def _set_places(options: argparse.Namespace) -> None:
    """Let Python find modules in the current folder, such as a method of one's own.

    Where only folders are read by their plans, it looks neither there nor in these folders: nothing in them may run.
    """
    given = options.studies if options.stage in ("compare", "prune", "convert") else [options.study]
    if getattr(options, "trust", True) or not all(path.is_dir() for path in given):
        sys.path.insert(0, str(Path.cwd()))
        return
    left_out = {folder.resolve() for folder in (Path.cwd(), *given)}
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() not in left_out]


def _stage(word: str) -> Callable[..., Any]:
    """Return the function of a stage: `efface.stages` has a module for each stage, with a function of the same name."""
    function: Callable[..., Any] = getattr(importlib.import_module(f"efface.stages.{word}"), word)
    return function


def _options_first(words: Sequence[str]) -> list[str]:
    """Return the words with the options before the study, for argparse refuses `STUDY --trust key=value`."""
    flags = ("--trust", "--remove")
    options = [word for word in flags if word in words]
    rest = [word for word in words if word not in flags]
    for at in [i for i, word in enumerate(rest) if word.split("=")[0] == "--metrics"][::-1]:
        taken = 1 if "=" in rest[at] else 2
        options += rest[at : at + taken]
        del rest[at : at + taken]
    return [*rest[:1], *options, *rest[1:]]


def _sentence(error: Exception) -> str:
    """Return an error as a sentence. Errors of efface are sentences; for errors of the system, name file and reason."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file of this run'}: {error.strerror.lower()}; finished work is kept"
    return str(error)


def _of_study(options: argparse.Namespace, sentences: str) -> str:
    """Return sentences that begin with a key of the study with the study's file before them."""
    from efface.study.study import Study

    path = getattr(options, "study", None)
    if path is None or path.is_dir():
        return sentences
    lines = sentences.split("\nefface: ")
    keys = Study.model_fields
    return "\nefface: ".join(f"{path}: {line}" if re.split("[.:]", line)[0] in keys else line for line in lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="efface",
        description="Does an attribution map tell the truth about an image classifier?",
        epilog="A stage runs the unfinished earlier stages first. After a kill, the same command goes on where it was.",
    )
    stages = parser.add_subparsers(dest="stage", metavar="STAGE", required=True)
    for name, does in STAGES.items():
        subparser = stages.add_parser(name, help=does, description=does)
        if name in (*_OF_FOLDERS, "compare"):
            subparser.add_argument("--trust", action="store_true", help=_TRUST)
        if name == "compare":
            subparser.add_argument(
                "studies", nargs="+", type=Path, metavar="STUDY", help="YAML files, or folders of runs"
            )
            subparser.add_argument("--out", type=Path, default=Path("runs/compare"), help="default: runs/compare")
            continue
        if name == "convert":
            what = "configurations of the ROAR reference system; files that hold parts of one run make one study"
            subparser.add_argument("studies", nargs="+", type=Path, metavar="OLD.yml", help=what)
            folder = "folder of the studies; default: configs"
            subparser.add_argument("--out", type=Path, default=Path("configs"), metavar="DIR", help=folder)
            continue
        if name == "prune":
            what = "YAML files, and key=value, which sets a key of each of them"
            subparser.add_argument("studies", nargs="+", metavar="STUDY", help=what)
            subparser.add_argument("--remove", action="store_true", help="remove these files; default: only list them")
            continue
        subparser.add_argument("study", type=Path, metavar="STUDY", help=_STUDY[name in _OF_FOLDERS])
        subparser.add_argument(
            "overrides", nargs="*", metavar="key=value", help="set a key of the study: fit.epochs=2, out=runs/other"
        )
        subparser.add_argument(
            "--metrics", metavar="A,B", help="measure only these metrics, by name; default: those of the study"
        )
    return parser


if __name__ == "__main__":
    command()
