"""What a run's results say so far: the curves of its plan, put together from the results alone."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from efface.metrics import misnamed
from efface.report.stats import Curve
from efface.stages.run.plan import Plan, PlannedCurve, PlannedPoint, make_plan
from efface.stages.run.run import Run
from efface.store.results import Results


@dataclass(frozen=True)
class PlannedRun:
    """A run with its plan, and what its results say so far: the curves, put together once."""

    run: Run
    plan: Plan

    @cached_property
    def curves(self) -> list[Curve]:
        """The curves of all metrics and views; NaN where a probe has not run yet."""
        opposites = {
            one.name: next((other.name for other in self.run.study.metrics if one.opposes(other)), "")
            for one in self.run.study.metrics
        }
        return [
            replace(curve, opposite=opposites[curve.metric])
            for planned in self.plan.curves
            for curve in curves_of(planned, self.run.results)
        ]


def planned(run: Run) -> PlannedRun:
    """The run with its plan as the run is now: keys change when its networks are trained."""
    return PlannedRun(run, make_plan(run))


def curves_of(planned: PlannedCurve, results: Results) -> list[Curve]:
    """A planned curve's values, a curve for each score of the metric."""
    formula, at = planned.entry.formula, planned.at
    table: dict[str, list[list[np.ndarray]]] = {name: [] for name in formula.direction}
    missing: set[float] = set()
    for repeat in planned.repeats:
        values = [_value(planned, point, results) for point in repeat]
        missing |= {where for where, value in zip(at, values, strict=True) if value is None}
        for name in formula.direction:
            table[name].append([np.atleast_1d(value[name]) if value else np.array([np.nan]) for value in values])
    return [
        Curve(
            metric=planned.entry.name,
            score=name,
            method=planned.view.name,
            at=at,
            values=(stacked := _stacked(table[name])),
            sample=formula.sample,
            direction=better,
            pairs=tuple(range(len(stacked))),
            caption=formula.caption,
            axis=formula.axis,
            summary="mean" if name in formula.by_mean else formula.summary,
            family="network" if formula.subject == "network" else formula.family,
            missing=tuple(sorted(missing)),
            may_lack_points=formula.may_lack_points,
            control=planned.view.control,
            draw_of=planned.view.draw_of,
            value_unit=formula.value_units.get(name, ""),
        )
        for name, better in formula.direction.items()
    ]


def _stacked(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Samples of all repeats by points; a point that lacks samples is NaN."""
    samples = max(len(each) for row in rows for each in row)
    blocks = [np.stack([each if len(each) == samples else np.full(samples, np.nan) for each in row], 1) for row in rows]
    return np.concatenate(blocks).astype(np.float64)


def _value(planned: PlannedCurve, point: PlannedPoint, results: Results) -> dict[str, Any] | None:
    """The metric's values at a point; None while one of its probes has no result."""
    if not all(task.key in results for task in point.tasks.values()):
        return None
    scores = {name: results.score(task.key) for name, task in point.tasks.items()}
    values = planned.entry.formula.value(scores)
    if problem := misnamed(planned.entry.formula, values):
        raise ValueError(f"metrics.{planned.entry.name}: {problem}")
    return dict(values)
