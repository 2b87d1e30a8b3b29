"""Stage measure: the probes of the metrics, after networks and maps; then the report."""

from collections.abc import Sequence
from dataclasses import replace

from efface.stages.page.keeping import keep_plans
from efface.stages.page.printed import say_verdicts
from efface.stages.page.write import one_page_writer, write_pages
from efface.stages.run.curves import PlannedRun, planned_run
from efface.stages.run.runs import measuring, narrowed, one_by_one, with_more_metrics, working
from efface.stages.work.extraction import extract_lost
from efface.stages.work.measuring import measure_missing
from efface.stages.work.steps import extracted
from efface.study.study import Study


def measure(study: Study, only: Sequence[str] = ()) -> list[str]:
    """Train, extract and measure what is not there yet; sentences on what failed.

    only: these metrics alone. The report that follows shows what was measured before as well.
    """
    with working(study, only) as runs:
        whole, failures = extracted(study, measuring(runs))
        if not failures:
            failures = [line for run in whole for line in extract_lost(run)]
        ready = {run.folder: planned_run(run) for run in whole}
        keep_plans(narrowed(study, only), [replace(planned) for planned in ready.values()])
        for run in one_by_one(study, whole):
            failures += measure_missing(ready[run.folder])
        shown = with_more_metrics(study, only) if only else study
        every = [ready.get(run.folder) or planned_run(run) for run in runs]
        with one_page_writer(study):
            write_pages(shown, [_widened(one, shown) for one in every] if only else every, anew=False)
            say_verdicts((study.out if len(every) > 1 else every[0].run.folder) / "report", only)
        return failures


def _widened(planned: PlannedRun, shown: Study) -> PlannedRun:
    """The run with all metrics that the page shows, and the plan of these."""
    part = next(part for parts in shown.parts().values() for part in parts if part.out == planned.run.folder)
    return planned_run(planned.run.with_study(part))
