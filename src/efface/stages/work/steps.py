"""Networks, then maps: the steps that a command takes before its own."""

from collections.abc import Sequence

from efface.stages.run.curves import planned_run
from efface.stages.run.map_files import missing_extractions
from efface.stages.run.plan import pointless
from efface.stages.run.run import Run
from efface.stages.run.runs import one_by_one
from efface.stages.trial.devices import try_devices
from efface.stages.trial.methods import preflight
from efface.stages.trial.network import try_network
from efface.stages.work.extraction import extract_missing
from efface.stages.work.training import train_missing
from efface.study.study import Study


def trained(runs: Sequence[Run], *, ask: bool = True) -> tuple[list[Run], list[str]]:
    """Try and train the networks. Returns the runs whose networks are there, and sentences on what failed."""
    for run in runs:
        try_devices(run)
        try_network(run)
    return _with_networks(runs, ask=ask)


def extracted(study: Study, runs: Sequence[Run], splits: Sequence[str] | None = None) -> tuple[list[Run], list[str]]:
    """Try the methods, train the networks, extract the maps. Returns the runs with networks, and failures.

    splits: splits of the maps; None: those that the study's metrics read.
    """
    refuse_pointless(study, runs)
    for run in runs:
        try_devices(run)
    new = [
        run
        for run in runs
        if not all(network.trained() for network in run.networks()) or missing_extractions(run, splits)
    ]
    for run in new:
        try:
            preflight(planned_run(run), splits=splits)  # hours are about to be spent
        except ValueError as error:
            raise ValueError(f"{error} (nothing was started)") from error
    whole, failures = _with_networks(runs, ask=False)
    for run in one_by_one(study, whole):
        failures += extract_missing(run, splits)
    return whole, failures


def refuse_pointless(study: Study, runs: Sequence[Run]) -> None:
    """ValueError: a claim is about a point that its metric does not have."""
    by_folder = {run.folder: run for run in runs}
    first = {name: by_folder[part.out] for name, (part, *_) in study.parts().items() if part.out in by_folder}
    if problems := list(pointless(study.claims, first)):
        raise ValueError("\nefface: ".join(problems))


def _with_networks(runs: Sequence[Run], *, ask: bool) -> tuple[list[Run], list[str]]:
    failed = train_missing(runs, ask=ask)
    return [run for run in runs if run.folder not in failed], [line for lines in failed.values() for line in lines]
