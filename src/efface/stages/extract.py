"""Stage extract: the maps of every method on every split that a metric needs, after the networks."""

from collections.abc import Sequence

from efface.stages.page.keeping import keep_plans_of
from efface.stages.run.runs import measuring, narrowed, working
from efface.stages.work.steps import extracted
from efface.study.study import Study


def extract(study: Study, only: Sequence[str] = ()) -> list[str]:
    """Train networks and extract maps that are not there yet; sentences on what failed.

    only: the maps that these metrics need.
    """
    with working(study, only) as runs:
        failures = extracted(study, measuring(runs) if only else runs)[1]
        keep_plans_of(narrowed(study, only), runs)
        return failures
