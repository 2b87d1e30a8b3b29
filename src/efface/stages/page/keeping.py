"""From a run to its plan as data, which is kept in its folder."""

import contextlib
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from efface.report.grid import read_made_from
from efface.stages.page.pictures import picture
from efface.stages.run.curves import PlannedRun, RunRecord, kept_curve, planned_run
from efface.stages.run.kept_plan import KeptFacts, KeptMaps, KeptNetwork, KeptRun, KeptStudy, read_kept, write_kept
from efface.stages.run.labels import labels_said
from efface.stages.run.map_files import needed_splits
from efface.stages.run.network import Network
from efface.stages.run.plan import ProbeTask
from efface.stages.run.provenance import package_versions, surroundings
from efface.stages.run.rounds import needed, spent_share
from efface.stages.run.run import Run
from efface.store.keys import key
from efface.study.study import Study


def record(planned: PlannedRun) -> RunRecord:
    """Return a run as data, with everything that a page of several runs shows. The network may be asked for it."""
    return RunRecord(planned.run.folder, kept_of(planned, whole=True), planned.run.results, planned.values)


def keep_plans(study: Study, measured: Sequence[PlannedRun], *, whole: bool = False) -> None:
    """Write the plan of each run of a study into its folder, and which runs there are.

    whole: True to keep the facts of the page, too.
    """
    for one in measured:
        kept = kept_of(one, whole=whole)
        if whole or not _is_kept(one.run.folder, kept):
            write_kept(one.run.folder, kept)
    parts = study.parts()
    if any(part.out != study.out for studies in parts.values() for part in studies):
        folders = {
            name: tuple(str(part.out.relative_to(study.out)) for part in studies) for name, studies in parts.items()
        }
        write_kept(study.out, KeptStudy(parts=folders, claims=study.claims))


def keep_plans_of(study: Study, runs: Sequence[Run]) -> None:
    """Plan the runs, and write their plans. Runs that cannot be planned yet are left out."""
    with contextlib.suppress(ValueError, OSError):  # what is wrong is said by the stage that needs it
        keep_plans(study, [planned_run(run) for run in runs])


def kept_of(planned: PlannedRun, *, whole: bool) -> KeptRun:
    """Return the plan of a run as data.

    whole: False leaves out what only the page needs, and does not ask the network.
    """
    run, plan, study = planned.run, planned.plan, planned.run.study
    is_asked = run.first.trained() and (whole or run.has_logits("test"))
    splits = needed_splits(run) if study.metrics else ["test"]
    return KeptRun(
        seed=study.seed,
        study=run.text,
        settings=key(study.model_dump(mode="json", exclude={"out", "seed"})),
        data=run.data_digest["test"],
        images=len(run.data["test"]),
        source=study.data.call,
        model=study.model.call,
        references=study.references(),
        claims=study.claims,
        metrics=planned.metrics,
        curves=tuple(kept_curve(curve) for curve in plan.curves),
        conditions={name: task.key for name, task in plan.conditions.items()},
        tasks=tuple(task.key for task in _tasks(planned, whole=whole)),
        networks=tuple(KeptNetwork(name=network.name, file=_file(run.folder, network)) for network in run.networks()),
        maps=tuple(
            KeptMaps(method=entry.name, split=split, names=tuple(entry.gives), rows=len(run.data[split]))
            for split in splits
            for entry in run.entries
        ),
        said=tuple(labels_said(run)) if is_asked else (),
        right=np.packbits(run.right().numpy()).tobytes().hex() if is_asked else None,
        facts=_facts(planned) if whole else None,
        classes=len(run.data["test"].targets.unique()),
        methods=tuple(view.name for view in run.views if not view.draw_of),
    )


def _tasks(planned: PlannedRun, *, whole: bool) -> Sequence[ProbeTask]:
    """Return the tasks of a run that its folder counts: in rounds, those of the rounds so far once these are measured.

    Before, it is not known how many rounds there will be, and a run that is killed must not look finished.
    """
    tasks = needed(planned)
    if whole or all(task.key in planned.run.results for task in tasks):
        return tasks
    return planned.plan.tasks


def _is_kept(folder: Path, kept: KeptRun) -> bool:
    """Return whether the same plan is there already, with the facts of the page or without."""
    with contextlib.suppress(ValueError, OSError):  # none yet, damaged, or of another version
        old = read_kept(folder)
        return old.model_dump(mode="json") | {"facts": None} == kept.model_dump(mode="json")
    return False


def _file(folder: Path, network: Network) -> str:
    is_trained = network.fit is not None and network.weights is None
    return Path(os.path.relpath(network.path, folder)).as_posix() if is_trained else ""


def _facts(planned: PlannedRun) -> KeptFacts:
    from efface.stages.page import report_data  # draws with matplotlib, which takes seconds to import

    return KeptFacts(
        versions=package_versions(),
        device=surroundings(planned.run.device)["device"],
        data=report_data.data_said(planned.run),
        network=report_data.network_said(planned.run),
        remarks=report_data.remarks(planned.run, planned.plan),
        how={entry.name: report_data.how_of(planned, entry) for entry in planned.run.study.metrics},
        layers=report_data.layers_of(planned.run),
        setting_of=report_data.setting_of(planned.run),
        outlines=report_data.outlines_of(planned.run.study),
        repeats=planned.run.study.repeats,
        passes=None if planned.run.study.decide is None else _known(spent_share(planned)),
        drawn=read_made_from(picture(planned.run) or b""),
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
