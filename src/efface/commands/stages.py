"""The stages as commands: `efface STAGE STUDY [key=value ...]`, and `compare` and `prune` of several studies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from efface.commands.running import Asked, run
from efface.commands.values import MetricNames, Override, StudyFile

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
    "prune": "list the files of runs that no given study needs, and remove them with --remove",
}
"""The words that have a module in `efface.stages`, and what each does."""

OF_FOLDERS = ("report", "status")
"""Stages that also take the folder of a run, as `compare` does."""
WITH_DOCUMENT = ("check", "status")
"""Stages that can write what they found as one JSON document."""
_STUDY = (
    "A YAML file, such as configs/digits.yml.",
    "A YAML file, such as configs/digits.yml, or the folder of a run.",
)
_TRUST = "Read the study in a folder, and run the code that it names. Default: the plan that was kept there."


def stage_command(word: str) -> click.Command:
    """Return the command of a stage. Its function returns the exit status."""
    parameters = {"compare": _of_compare, "prune": _of_prune}.get(word, lambda: _of_one_study(word))()
    if word in (*OF_FOLDERS, "compare"):
        parameters.append(click.Option(["--trust"], is_flag=True, help=_TRUST))
    if word in WITH_DOCUMENT:
        parameters.append(as_json())
    return click.Command(word, params=parameters, callback=_called(word), help=sentence(STAGES[word]))


def sentence(text: str) -> str:
    """Return a text with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def as_json() -> click.Option:
    """Return the option of the commands that can write a JSON document."""
    told = "Write one JSON document to stdout, and all messages to stderr. docs/command-line.md lists its keys."
    return click.Option(["--json", "as_json"], is_flag=True, help=told)


def study_argument(told: str = _STUDY[0], **settings: Any) -> click.Argument:
    """Return the argument of a study's file."""
    return click.Argument(["study"], type=StudyFile(), metavar="STUDY", help=told, **settings)


def overrides_argument() -> click.Argument:
    """Return the argument of the words that set keys of the study."""
    told = "Set a key of the study: fit.epochs=2, out=runs/other."
    return click.Argument(["overrides"], nargs=-1, type=Override(), metavar="[key=value]...", help=told)


def _of_one_study(word: str) -> list[click.Parameter]:
    told = "Measure only these metrics, by name. Default: those of the study."
    metrics = click.Option(["--metrics"], type=MetricNames(), metavar="A,B", default=(), help=told)
    return [study_argument(_STUDY[word in OF_FOLDERS]), overrides_argument(), metrics, *_of_report(word)]


def _of_report(word: str) -> list[click.Parameter]:
    told = "Compare everything with this method, in place of the random ranking or the study's reference."
    return [click.Option(["--against"], metavar="NAME", help=told)] if word in ("all", "measure", "report") else []


def _of_compare() -> list[click.Parameter]:
    told = "YAML files, or folders of runs."
    several = click.Argument(["studies"], nargs=-1, required=True, type=StudyFile(), metavar="STUDY...", help=told)
    out = click.Option(
        ["--out"],
        type=click.Path(path_type=Path),
        default=Path("runs/compare"),
        show_default=True,
        help="Folder of the page.",
    )
    return [several, out]


def _of_prune() -> list[click.Parameter]:
    told = "YAML files, and key=value, which sets a key of each of them."
    several = click.Argument(["words"], nargs=-1, required=True, type=StudyFile(str), metavar="STUDY...", help=told)
    remove = click.Option(["--remove"], is_flag=True, help="Remove these files. Default: only list them.")
    return [several, remove]


def _called(word: str) -> Any:
    """Return the function that click calls with the words of a command line."""

    def called(
        study: Path | None = None,
        studies: Sequence[Path] = (),
        words: Sequence[str] = (),
        overrides: Sequence[str] = (),
        metrics: Sequence[str] = (),
        **flags: Any,
    ) -> int:
        given = [study] if study is not None else [*studies, *(Path(each) for each in words if "=" not in each)]
        sets = [*overrides, *(each for each in words if "=" in each)]
        return run(Asked(word, tuple(given), tuple(sets), tuple(metrics), **flags))

    return called
