"""Stage visualize: test images, samples and maps as pictures, after networks and maps; then the report."""

from collections.abc import Sequence

from efface.stages.page.pictures import draw_pictures, shown_rows
from efface.stages.page.write import one_page_writer, write_pages
from efface.stages.run.curves import planned_run
from efface.stages.run.map_files import missing_extractions
from efface.stages.run.runs import one_by_one, working
from efface.stages.work.steps import extracted
from efface.study.study import Study

_SHOWN = ("test",)
"""The splits whose maps are shown."""


def visualize(study: Study, only: Sequence[str] = ()) -> list[str]:
    """Draw the pictures of every run whose maps are there; sentences on what failed."""
    with working(study, only) as runs:
        for run in runs:
            shown_rows(run)  # refused before hours are spent
        without_metrics = [run.with_study(run.study.with_metrics([])) for run in runs]
        whole, failures = extracted(study, without_metrics, _SHOWN)
        for run in one_by_one(study, [run for run in whole if not missing_extractions(run, _SHOWN)]):
            draw_pictures(run)
        with one_page_writer(study):
            write_pages(study, [planned_run(run) for run in runs], anew=False)
        return failures
