"""A metric's `value`, tried on the first scores from which it can be put together: before hours of other tasks."""

from collections import defaultdict
from collections.abc import Iterator

from efface.stages.run.plan import Plan, PlannedCurve, PlannedPoint
from efface.stages.run.values import valued
from efface.store.results import Results


class FirstValues:
    """The points of a plan, by the results that they wait for, and the metrics whose `value` was tried."""

    def __init__(self, plan: Plan) -> None:
        self._tried: set[str] = set()
        self._waiting: dict[str, list[tuple[PlannedCurve, PlannedPoint]]] = defaultdict(list)
        for curve in plan.curves:
            for point in curve.repeats[0]:
                for task in point.tasks.values():
                    self._waiting[task.key].append((curve, point))

    def faults(self, key: str, results: Results) -> Iterator[str]:
        """Yield a sentence for each metric whose `value` fails once this result is there; each metric is tried once."""
        for curve, point in self._waiting.get(key, ()):
            entry, keys = curve.entry, {name: task.key for name, task in point.tasks.items()}
            if entry.name in self._tried or not all(task_key in results for task_key in keys.values()):
                continue
            self._tried.add(entry.name)
            scores = {name: results.score(task_key) for name, task_key in keys.items()}
            try:
                valued(entry.name, entry.formula, entry.formula.value, scores, "the first scores")
            except ValueError as error:
                yield str(error)
