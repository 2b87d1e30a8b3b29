"""Stage report: the page of what is measured so far. It reads files and computes no new number."""

from collections.abc import Sequence
from pathlib import Path

from efface.stages.page.write import write_pages
from efface.stages.run.curves import PlannedRun, planned_run
from efface.stages.run.progress import say
from efface.stages.run.rounds import needed
from efface.stages.run.runs import narrowed, runs_of
from efface.study.study import Study


def report(study: Study, only: Sequence[str] = ()) -> list[str]:
    """Write the pages, and once more if a measurement ended while they were written."""
    study = narrowed(study, only)
    for _ in range(2):  # a run beside it goes on for hours, and writes its own page at the end
        runs = runs_of(study)
        before = [_size(run.results.path) for run in runs]
        if not any(run.results.records for run in runs):
            raise FileNotFoundError(f"{runs[0].results.path}: nothing is measured yet; run the measure stage first")
        measured = [planned_run(run) for run in runs]
        _say_what_is_open(study, measured)
        write_pages(study, measured, anew=True)
        if [_size(run.results.path) for run in runs] == before:
            break
    return []


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


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
