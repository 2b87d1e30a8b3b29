"""efface STAGE STUDY [key=value ...]: a stage does what is left of the stages that it needs, then its own work."""

import argparse
import importlib
import os
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
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage and return the exit status.

    0: done. 1: a task or the stage failed. 2: the study or the command is wrong. 130: stopped by Ctrl-C.
    """
    options = _parser().parse_args(_options_first(sys.argv[1:] if arguments is None else arguments))
    try:
        return _run(options)
    except KeyboardInterrupt:  # also while torch is imported
        print("efface: stopped; the same command continues from here", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    # torch takes seconds to import, so help and wrong commands are handled first
    from efface.execute import stoppable
    from efface.study.study import read
    from efface.study.yaml_file import InvalidStudyError

    sys.path.insert(0, str(Path.cwd()))  # so that a method in the user's folder can be imported
    study = None
    try:
        if options.stage == "compare":
            _stage("compare")(options.studies, options.out)
            return 0
        study = read(options.study, options.overrides)
        only = options.metrics.replace(",", " ").split() if options.metrics else []
        if options.stage not in ("status", "report") and os.environ.get("OMP_NUM_THREADS") is None:
            os.environ["OMP_NUM_THREADS"] = "1"  # the workers read it: N processes of one thread each
        with stoppable():
            failures = _stage(options.stage)(study, only)
    except InvalidStudyError as error:
        print(error, file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"efface: {_sentence(error)}", file=sys.stderr)
        return 1
    except Exception as error:  # noqa: BLE001  from a user's loss or network, torch or the GPU; reported in one line
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        if study is not None and study.out.is_dir():
            with (study.out / "failures.log").open("a") as file:
                file.write(f"{options.stage}\n{traceback.format_exc()}\n")
            where += f", trace in {study.out / 'failures.log'}"
        text = " ".join(str(error).split())[:400]
        print(f"efface: {options.stage} fails: {type(error).__name__}: {text} ({where})", file=sys.stderr)
        return 1
    for each in failures:
        print(f"efface: failed: {each}", file=sys.stderr)
    if failures:
        print(
            f"efface: {len(failures)} failed (traces in {study.out / 'failures.log'}); all other results are kept",
            file=sys.stderr,
        )
    return 1 if failures else 0


def _stage(word: str) -> Callable[..., Any]:
    """Return the function of a stage: `efface.stages` has a module for each stage, with a function of the same name."""
    function: Callable[..., Any] = getattr(importlib.import_module(f"efface.stages.{word}"), word)
    return function


def _options_first(words: Sequence[str]) -> list[str]:
    """Return the words with the options before the study, for argparse refuses `STUDY --metrics roar key=value`."""
    rest = list(words)
    options = []
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="efface",
        description="Does an attribution map tell the truth about an image classifier?",
        epilog="A stage first does what is left of the stages that it needs. After a kill it goes on where it was.",
    )
    stages = parser.add_subparsers(dest="stage", metavar="STAGE", required=True)
    for name, does in STAGES.items():
        each = stages.add_parser(name, help=does, description=does)
        if name == "compare":
            each.add_argument("studies", nargs="+", type=Path, metavar="STUDY", help="YAML files, or folders of runs")
            each.add_argument("--out", type=Path, default=Path("runs/compare"), help="default: runs/compare")
            continue
        each.add_argument("study", type=Path, metavar="STUDY", help="a YAML file, such as configs/digits.yml")
        each.add_argument(
            "overrides", nargs="*", metavar="key=value", help="set a key of the study: fit.epochs=2, out=runs/other"
        )
        each.add_argument(
            "--metrics", metavar="A,B", help="measure only these metrics, by name; default: those of the study"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
