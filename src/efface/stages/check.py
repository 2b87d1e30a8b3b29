"""Stage check: everything that can be known before hours are spent. It keeps nothing."""

from collections.abc import Iterable, Sequence
from typing import Any

from efface.execute.process_group import refuse_torchrun
from efface.stages.page.accuracy import unaccompanied
from efface.stages.run.curves import planned_run
from efface.stages.run.labels import labels_tried
from efface.stages.run.progress import say
from efface.stages.run.run import Run
from efface.stages.run.runs import measuring, narrowed, one_by_one, refuse_unwritable, runs_of
from efface.stages.trial.devices import try_devices
from efface.stages.trial.estimate import around_the_work, say_estimate, span
from efface.stages.trial.executor import try_executor
from efface.stages.trial.keywords import near_keywords
from efface.stages.trial.methods import preflight
from efface.stages.trial.power import power_said, powerless
from efface.stages.trial.presets import presets_said, resolved
from efface.stages.trial.training_step import has_zero_hessian
from efface.stages.work.steps import refuse_pointless
from efface.study import recommended_metrics
from efface.study.study import Study


def check(study: Study, only: Sequence[str] = (), *, facts: dict[str, Any] | None = None) -> list[str]:
    """Try every method on two images, plan every metric, and say how long it may take.

    only: these metrics alone; all of them if there are none.
    facts: gets what is said, as plain values: `out`, `warnings`, `recommended`, `runs` (see `check_run`) and `seconds`.

    ValueError: what cannot work, a line each.
    """
    facts = {} if facts is None else facts
    refuse_torchrun()
    facts |= {"out": str(study.out), "warnings": [], "recommended": [], "runs": []}
    asked = narrowed(study, only)
    runs = measuring(runs_of(asked)) if only else runs_of(asked)
    refuse_unwritable(study.out)
    for line in dict.fromkeys(line for run in runs for line in recommended_metrics.said(run.study.model_dump())):
        say(f"metrics: {line}")
        facts["recommended"].append(line)
    refuse_pointless(asked, runs)
    _warn(facts, dict.fromkeys(line for run in runs for line in near_keywords(run.study)))
    try_executor(asked)
    for run in one_by_one(study, runs):
        facts["runs"].append(found := dict[str, Any]())
        check_run(run, found)
    _warn(facts, dict.fromkeys(line for run in runs for line in unaccompanied(run.study.metrics)))
    facts["seconds"] = sum(found["left"]["seconds"] for found in facts["runs"])
    if len(runs) > 1:
        say(f"all {len(runs)} runs: estimate: {span(facts['seconds'], around_the_work())}")
    return []


def _warn(facts: dict[str, Any], lines: Iterable[str]) -> None:
    """Print warnings, and keep them in the facts."""
    for line in lines:
        say(f"warning: {line}")
        facts["warnings"].append(line)


def check_run(run: Run, facts: dict[str, Any] | None = None) -> float:
    """Try and plan one run. Returns the seconds that what is left may take.

    facts: gets what is said, as plain values: `folder`, `data`, `presets`, `methods`, `power`, `warnings` and `left`.
    """
    facts = {} if facts is None else facts
    data = ", ".join(f"{len(split)} {name}" for name, split in run.data.items())
    c, h, w = run.data["test"].shape
    say(f"data: {run.study.data.call}: {data} images of {c} x {h} x {w}")
    notes = [note for split in run.data.values() for note in split.notes]
    for note in notes:
        say(f"data: {note}")
    images = {name: len(split) for name, split in run.data.items()}
    facts |= {"folder": str(run.folder), "warnings": []}
    facts["data"] = {"call": run.study.data.call, "images": images, "shape": [c, h, w], "notes": notes}
    try_devices(run, tell=True)
    facts["presets"] = resolved(run.study)
    for line in presets_said(run.study):
        say(line)
    one = planned_run(run)
    for unit in (handed for asked, handed in run.units.items() if handed != asked):
        tall, wide = unit.kwargs["token_size"]
        say(f"unit {unit.call.rpartition('.')[2]}: the network's patches have {tall} x {wide} pixels")
    trials = preflight(one, warn=True)
    for trial in trials:
        for line in trial.layers:
            say(f"{trial.name}: {line}")
    facts["power"] = list(power_said(run, one.plan))
    for line in facts["power"]:
        say(f"power: {line}")
    _warn(facts, (*labels_tried(run), *has_zero_hessian(run), *powerless(run, one.plan)))
    facts["methods"] = [trial.facts() for trial in trials]
    for trial in trials:
        for warning in trial.warnings:
            say(f"warning: {trial.name}: {warning}")
    if not run.study.references():
        _warn(
            facts, ["no method is a random control (method: random). Without one, no curve can be compared with chance"]
        )
    passes = {trial.name: trial.passes for trial in trials}
    left = say_estimate(one, passes, least=any(trial.cut for trial in trials))
    facts["left"] = left.facts()
    return left.seconds
