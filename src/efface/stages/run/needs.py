"""Messages about needs of metrics that the study and its data do not meet."""

from collections.abc import Callable, Iterator

from efface.metrics.probes import Needs
from efface.stages.run.plan import Plan, ProbeTask
from efface.stages.run.run import Run


def unmet(run: Run, plan: Plan) -> list[str]:
    """Metrics that need what the data or the study do not have, in words."""

    def needing(what: Callable[[Needs], bool]) -> list[str]:
        return list(dict.fromkeys(name for name, _, task in _tasks(plan) if what(task.probe.needs)))

    unjudged = [] if run.study.second_network else needing(lambda needs: needs.second_network)
    unmasked = needing(lambda needs: needs.masks) if run.data["test"].masks is None else []
    asked = {(name, view, maps): None for name, (view, maps), task in _tasks(plan) if maps and task.probe.needs.method}
    problems = [
        f"{name}: needs a second network, but the study has no 'second_network'; add second_network: {{model: ..., "
        "fit: ...}"
        for name in unjudged
    ]
    problems += [
        f"{name}: needs the masks of the true object, which {run.study.data.call} does not give; "
        "choose data that have them, such as patches, or drop this metric"
        for name in unmasked
    ]
    problems += [
        f"{name}: runs the method of '{view}' again, but '{view}' is a file of maps; leave this metric or this row "
        "out, or plug in the method itself"
        for name, view, maps in asked
        if run.entry_of_maps(maps).file is not None
    ]
    return [f"metrics.{problem}" for problem in problems]


def _tasks(plan: Plan) -> Iterator[tuple[str, tuple[str, str], ProbeTask]]:
    """Yield the metric, the view with its maps, and each task of each curve."""
    for curve in plan.curves:
        for point in curve.points:
            for task in point.tasks.values():
                yield curve.entry.name, (curve.view.name, curve.view.maps), task
