"""Stage train: the network that is explained, and a second network where the study has one."""

from collections.abc import Sequence

from efface.stages.run.runs import working
from efface.stages.work.steps import trained
from efface.study.study import Study


def train(study: Study, only: Sequence[str] = ()) -> list[str]:
    """Train the networks of every run that are not there yet; sentences on what failed."""
    with working(study, only) as runs:
        return trained(runs)[1]
