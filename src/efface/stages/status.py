"""Stage status: what is done and what is left."""

from collections.abc import Sequence
from typing import Any

from efface.stages.run.curves import PlannedRun, kept_curve
from efface.stages.run.map_files import missing_extractions
from efface.stages.run.plan import make_plan
from efface.stages.run.progress import say
from efface.stages.run.rounds import needed, pairs_said
from efface.stages.run.runs import measuring, narrowed, one_by_one, runs_of
from efface.stages.run.state import failures_of, run_facts, say_failures, say_files
from efface.store.maps import finished_rows, partial_path
from efface.study.study import Study


def status(study: Study, only: Sequence[str] = (), *, facts: dict[str, Any] | None = None) -> list[str]:
    """Say of every run which networks, maps and results are there.

    facts: gets the same as plain values: `out` and `runs`, see `run_facts`.
    """
    runs = runs_of(narrowed(study, only))
    facts = {} if facts is None else facts
    facts |= {"out": str(study.out), "runs": []}
    for run in one_by_one(study, measuring(runs) if only else runs):
        networks = {network.name: network.trained() for network in run.networks()}
        extractions = [
            (
                task.method,
                task.split,
                finished_rows(partial_path(run.map_path(task.method, task.split))),
                len(run.data[task.split]),
            )
            for task in missing_extractions(run)
        ]
        say_files(str(run.folder), networks, extractions)
        plan = make_plan(run)
        planned, in_rounds = PlannedRun(run, plan), run.study.decide is not None
        still_open = len(plan.open(run.results))
        done = len(plan.tasks) - still_open
        if in_rounds and all(task.key in run.results for task in needed(planned)):
            still_open = 0
        most = "at most " if in_rounds and still_open else ""
        say(f"probes: {done} of {len(plan.tasks)} done, {most}{still_open} left")
        failures = failures_of(map(kept_curve, plan.curves), run.results)
        say_failures(failures)
        rounds = pairs_said(planned) if in_rounds else ""
        if rounds:
            say(rounds)
        found = run_facts(str(run.folder), networks, extractions, (len(plan.tasks), done, still_open), failures)
        facts["runs"].append(found | {"rounds": rounds, "at_most": bool(most)})
    return []
