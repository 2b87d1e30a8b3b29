"""Stage report: the page of what is measured so far. It reads files and computes no new number."""

from collections.abc import Sequence
from pathlib import Path

from efface.stages.page.write import one_page_writer, write_pages
from efface.stages.run.curves import PlannedRun, planned_run
from efface.stages.run.progress import say
from efface.stages.run.rounds import needed
from efface.stages.run.runs import narrowed, runs_of
from efface.store.results import FILE
from efface.study.study import Study


def report(study: Study, only: Sequence[str] = ()) -> list[str]:
    """Write the pages of what is measured so far."""
    study = narrowed(study, only)
    paths = [run.folder / FILE for run in runs_of(study)]
    if not any(path.exists() for path in paths):
        raise _nothing(paths)
    with one_page_writer(study):
        runs = runs_of(study)  # read inside the lock, so that no older page replaces a newer one
        if not any(run.results.records for run in runs):
            raise _nothing(paths)
        measured = [planned_run(run) for run in runs]
        _say_what_is_open(study, measured)
        write_pages(study, measured, anew=True)
    return []


def _nothing(paths: Sequence[Path]) -> FileNotFoundError:
    return FileNotFoundError(f"{paths[0]}: nothing is measured yet; run the measure stage first")


def _say_what_is_open(study: Study, measured: Sequence[PlannedRun]) -> None:
    """ValueError: the folder holds results, but none of those that the study plans: they are of older code."""
    tasks = [(one.run.results, task.key) for one in measured for task in needed(one)]
    planned, done = len(tasks), sum(key in results for results, key in tasks)
    has_results = any(
        "n" in row for one in measured for row in one.run.results.records.values()
    )  # training has lines, too
    if planned and has_results and not done:
        raise ValueError(
            f"{study.out}: holds results, but none of the {planned} that this study asks for: they were made with "
            "other settings, other weights or other code of efface. The report was not changed. Run the measure stage "
            "to compute the results again, or write the report with the version that made them"
        )
    if done < planned:
        say(f"report: {done} of the {planned} probes of this study are there; the others are not measured yet")
