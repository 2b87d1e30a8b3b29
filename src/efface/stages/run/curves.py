"""Curves of all metrics, put together from the results."""

from typing import Any

import numpy as np

from efface.metrics import Point
from efface.report.stats import Curve
from efface.stages.run.plan import across, cell_of, point_of, repeats, viewed
from efface.stages.run.run import Run
from efface.stages.run.view import View
from efface.study.schema import MetricEntry


def curves(run: Run) -> list[Curve]:
    """The curves of all metrics and views, from the results alone; NaN where a probe has not run yet."""
    found = []
    for entry in run.study.metrics:
        for view in viewed(run, entry):
            found += _curves(run, entry, view)
    return found


def _curves(run: Run, entry: MetricEntry, view: View) -> list[Curve]:
    formula, at = entry.formula, across(run, entry)
    table: dict[str, list[list[np.ndarray]]] = {name: [] for name in formula.better}
    missing: set[float] = set()
    for repeat in range(repeats(run, entry)):
        found_here = [_value(run, entry, view, point_of(run, entry, view, fraction, repeat)) for fraction in at]
        missing |= {where for where, value in zip(at, found_here, strict=True) if value is None}
        for name in formula.better:
            table[name].append([np.atleast_1d(value[name]) if value else np.array([np.nan]) for value in found_here])
    found = []
    for name, better in formula.better.items():
        samples = max(len(each) for row in table[name] for each in row)
        blocks = [
            np.stack([each if len(each) == samples else np.full(samples, np.nan) for each in row], 1)
            for row in table[name]
        ]
        values = np.concatenate(blocks).astype(np.float64)
        pairs = tuple(range(len(values)))
        found.append(
            Curve(
                metric=entry.name,
                score=name,
                method=view.name,
                at=at,
                values=values,
                over=formula.over,
                better=better,
                pairs=pairs,
                says=formula.says,
                axis=formula.axis,
                summary="mean" if name in formula.by_mean else formula.summary,
                family="network" if formula.of == "network" else formula.family,
                missing=tuple(sorted(missing)),
                partial=formula.partial,
                control=view.control,
                draw_of=view.draw_of,
            )
        )
    return found


def _value(run: Run, entry: MetricEntry, view: View, point: Point) -> dict[str, Any] | None:
    keys = {name: cell_of(run, view, probe).key for name, probe in entry.formula.probes(point).items()}
    if not all(each in run.results for each in keys.values()):
        return None
    return dict(entry.formula.value({name: run.results.score(each) for name, each in keys.items()}))
