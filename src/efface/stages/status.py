"""Stage status: what is done and what is left."""

from collections.abc import Sequence

from efface.stages.run.curves import PlannedRun
from efface.stages.run.map_files import missing_extractions
from efface.stages.run.plan import make_plan
from efface.stages.run.progress import say
from efface.stages.run.rounds import needed, pairs_said
from efface.stages.run.runs import measuring, narrowed, one_by_one, runs_of
from efface.store.maps import finished_rows, partial_path
from efface.study.study import Study


def status(study: Study, only: Sequence[str] = ()) -> list[str]:
    """Say of every run which networks, maps and results are there."""
    runs = runs_of(narrowed(study, only))
    for run in one_by_one(study, measuring(runs) if only else runs):
        for network in run.networks():
            say(f"{run.folder}: {network.name} {'there' if network.trained() else 'to be trained'}")
        for task in missing_extractions(run):
            finished = finished_rows(partial_path(run.map_path(task.method, task.split)))
            say(f"  to extract: {task.method}, {task.split}: {finished} of {len(run.data[task.split])} maps are there")
        plan = make_plan(run)
        planned, in_rounds = PlannedRun(run, plan), run.study.decide is not None
        still_open = len(plan.open(run.results))
        done = len(plan.tasks) - still_open
        if in_rounds and all(task.key in run.results for task in needed(planned)):
            still_open = 0
        most = "at most " if in_rounds and still_open else ""
        say(f"probes: {done} of {len(plan.tasks)} done, {most}{still_open} left")
        if in_rounds:
            say(pairs_said(planned))
    return []
