"""Stage train: the network that is explained, and a second network where the study has one."""

from collections.abc import Sequence

from efface.stages.page.keeping import keep_plans_of
from efface.stages.run.runs import narrowed, working
from efface.stages.work.steps import trained
from efface.study.study import Study


def train(study: Study, only: Sequence[str] = ()) -> list[str]:
    """Train the networks of every run that are not there yet; sentences on what failed."""
    with working(study, only) as runs:
        failures = trained(runs)[1]
        keep_plans_of(narrowed(study, only), runs)
        return failures
