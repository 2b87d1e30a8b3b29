"""Stage samples: images that the network makes of the classes of the test images, after the networks."""

from collections.abc import Sequence

from efface.stages.run.runs import one_by_one, working
from efface.stages.work.sampling import make_samples
from efface.stages.work.steps import trained
from efface.study.study import Study


def samples(study: Study, only: Sequence[str] = ()) -> list[str]:
    """Make the study's samples that are not there yet; sentences on what failed."""
    with working(study, only) as runs:
        whole, failures = trained(runs)
        for run in one_by_one(study, whole):
            failures += make_samples(run)
        return failures
