"""Stage compare: several studies, or folders of runs, side by side on one page."""

from collections.abc import Sequence
from pathlib import Path

from efface.stages.page.comparison import labels, study_of, write_comparison
from efface.stages.run.curves import planned
from efface.stages.run.run import Run


def compare(paths: Sequence[Path], folder: Path) -> None:
    """Write the page of several studies, and of the variants of each. ValueError: nothing is measured in one of them.

    paths: YAML files, or folders of runs, of variants, of seeds.
    """
    studies = [study_of(path) for path in paths]
    parts = [(study.out, name, each) for study in studies for name, each in study.parts().items()]
    named = zip(labels([(out, name) for out, name, _ in parts]), parts, strict=True)
    beside = {label: [Run(part) for part in each] for label, (_, _, each) in named}
    for label, runs in beside.items():
        if not any(run.results.rows for run in runs):
            raise ValueError(f"compare: {label}: nothing is measured in {runs[0].folder}; run the measure stage first")
    measured = {label: [planned(run) for run in runs] for label, runs in beside.items()}
    write_comparison(folder, folder.name, measured)
