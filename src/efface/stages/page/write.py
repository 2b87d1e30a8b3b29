"""The pages of a study: one for each run, and one of several runs side by side."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from efface.stages.page.comparison import write_comparison
from efface.stages.page.keeping import keep_plans, record
from efface.stages.page.report import write_report
from efface.stages.run.curves import PlannedRun, RunRecord
from efface.store.locks import locked
from efface.study.study import Study


def one_page_writer(study: Study) -> AbstractContextManager[None]:
    """Let one process at a time write the pages of a study: the last one has read the newest results."""
    return locked(study.out / ".report-lock")


def write_pages(study: Study, measured: Sequence[PlannedRun], *, anew: bool) -> None:
    """Write the page of each run that has results, of several beside one another, and the plan of each as data.

    study: the one that the runs belong to, with the metrics that the pages show.
    anew: False leaves a page as it is that was made from the same results and the same code.
    """
    for one in measured:
        if one.run.results.records:
            write_report(one, anew=anew)
    keep_plans(study, measured, whole=True)
    if len(measured) > 1:
        by_folder: dict[Path, RunRecord] = {one.run.folder: record(one) for one in measured}
        beside = {name: [by_folder[part.out] for part in parts] for name, parts in study.parts().items()}
        write_comparison(study.out / "report", study.out.name, beside, study.claims)
