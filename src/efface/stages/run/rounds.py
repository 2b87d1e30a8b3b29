"""Rounds of a study that decides as it measures: each round runs what the open pairs of methods still need."""

import itertools
from collections.abc import Collection, Iterable
from typing import NamedTuple

from efface.report.decided import Decision, decisions
from efface.stages.run.curves import PlannedRun
from efface.stages.run.plan import Plan, PlannedCurve, PlannedPoint, ProbeTask
from efface.store.results import Results


class Standing(NamedTuple):
    """The pairs of methods on the metrics that are measured in rounds.

    decided: pairs that are told apart. open: others of which a further round is planned. tied: others for which
    everything that can run has run.
    """

    decided: tuple[Decision, ...]
    open: tuple[Decision, ...]
    tied: tuple[Decision, ...]


def wanted(planned: PlannedRun, stuck: Collection[str] = ()) -> list[ProbeTask]:
    """Return the tasks of the next round that have no result yet; none if everything is decided or measured.

    The first round has everything that is measured at once, and the first images or repeats of each method. Later ones
    have the next images or repeats of the methods of each open pair.

    planned: a copy that has no curves of an earlier round.
    stuck: keys of tasks that failed or cannot run. A method that needs one of them takes part in no further round.
    """
    plan, results = planned.plan, planned.run.results
    early = _early(plan)
    todo = [task for task in plan.tasks if task.key in early and task.key not in results and task.key not in stuck]
    if todo:
        return todo
    rows = _rows(planned)
    keys = {
        task.key
        for pair in standing(planned, stuck).open
        for row in _behind(rows[pair.metric, pair.first], rows[pair.metric, pair.second])
        for task in _round(*row)
    }
    return [task for task in plan.tasks if task.key in keys and task.key not in results]


def needed(planned: PlannedRun) -> list[ProbeTask]:
    """Return the tasks that the study needs as far as its results tell: all of them, or those of the rounds so far."""
    if planned.run.study.decide is None:
        return list(planned.plan.tasks)
    keys = {task.key for task in wanted(planned)}
    return [task for task in planned.plan.tasks if task.key in keys or task.key in planned.run.results]


def standing(planned: PlannedRun, stuck: Collection[str] = ()) -> Standing:
    """Return which pairs are decided with the run's curves. stuck: see `wanted`."""
    study, rows = planned.run.study, _rows(planned)
    assert study.decide is not None
    sorted_by: tuple[list[Decision], list[Decision], list[Decision]] = ([], [], [])
    goes_on = {key: _can_go_on(row, stuck) for key, row in rows.items()}
    by_pair = {
        (decision.metric, frozenset((decision.first, decision.second))): decision
        for decision in decisions(planned.curves)
    }
    of_metrics = [list(keys) for _, keys in itertools.groupby(rows, key=lambda key: key[0])]
    for one, two in (pair for keys in of_metrics for pair in itertools.combinations(keys, 2)):
        nothing = Decision(*one, two[1], float("nan"))  # a method without a value so far, in none of the decisions
        pair = by_pair.get((one[0], frozenset((one[1], two[1]))), nothing)
        least = min(rows[one].done, rows[two].done)
        can = all(goes_on[key] for key in (one, two) if rows[key].done == least)
        sorted_by[0 if pair.p < study.decide.level else 1 if can else 2].append(pair)
    return Standing(*map(tuple, sorted_by))


def pairs_said(planned: PlannedRun, stuck: Collection[str] = ()) -> str:
    """Return how many pairs of methods are decided and open, in words."""
    pairs = standing(planned, stuck)
    count = sum(map(len, pairs))
    if not count:
        return "no pair of methods is measured yet"
    return f"{len(pairs.decided)} of {count} pairs of methods are decided, {len(pairs.open)} are open"


def spent_share(planned: PlannedRun) -> float:
    """Return the share of the planned forward passes of the metrics in rounds that have been spent."""
    run = planned.run
    images = {name: len(split) for name, split in run.data.items()}
    tasks = {task.key: task for curve in _in_rounds(planned.plan).values() for task in _tasks(curve.repeats)}
    costs = {key: float(task.probe.cost(images, run.refit)) for key, task in tasks.items()}
    return sum(cost for key, cost in costs.items() if key in run.results) / max(sum(costs.values()), 1e-300)


class _Row(NamedTuple):
    """A curve that is measured in rounds, and how many of its rounds are measured."""

    curve: PlannedCurve
    done: int


def _rows(planned: PlannedRun) -> dict[tuple[str, str], _Row]:
    """Return the curves that are measured in rounds, by metric and method."""
    curves = _in_rounds(planned.plan)
    return {key: _Row(curve, _finished(curve, planned.run.results)) for key, curve in curves.items()}


def _behind(one: _Row, other: _Row) -> list[_Row]:
    """Return the one of two curves that has fewer rounds. Both, if they have the same number.

    Two metrics that share probes may have measured one method further than the other.
    """
    return [row for row in (one, other) if row.done == min(one.done, other.done)]


def _can_go_on(row: _Row, stuck: Collection[str]) -> bool:
    """Return whether a further round of the curve is planned, and none of its tasks is stuck."""
    assert row.curve.looks is not None
    return row.done < len(row.curve.looks.after) and not any(task.key in stuck for task in _round(*row))


def _early(plan: Plan) -> set[str]:
    """Return the keys of all tasks of the first round."""
    curves = _in_rounds(plan).values()
    first = {task.key for curve in curves for task in _round(curve, 0)}
    first |= {task.key for curve in plan.curves if curve.looks is None for task in _tasks(curve.repeats)}
    later = {task.key for curve in curves for task in _tasks(curve.repeats)} - first
    return {task.key for task in plan.tasks} - later


def _in_rounds(plan: Plan) -> dict[tuple[str, str], PlannedCurve]:
    """Return the curves that are measured in rounds, by metric and method."""
    return {(curve.entry.name, curve.view.name): curve for curve in plan.curves if curve.looks is not None}


def _round(curve: PlannedCurve, number: int) -> list[ProbeTask]:
    """Return the tasks of a round of the curve, from 0: of one block of images, or of one or more repeats."""
    assert curve.looks is not None
    if curve.entry.formula.sample == "images":
        return _tasks(curve.repeats[number : number + 1])
    start, stop = (0, *curve.looks.after)[number : number + 2]
    return _tasks(curve.repeats[start:stop])


def _finished(curve: PlannedCurve, results: Results) -> int:
    """Return how many rounds of the curve are measured."""
    assert curve.looks is not None
    rounds = (_round(curve, number) for number in range(len(curve.looks.after)))
    return sum(1 for _ in itertools.takewhile(lambda tasks: all(task.key in results for task in tasks), rounds))


def _tasks(repeats: Iterable[Iterable[PlannedPoint]]) -> list[ProbeTask]:
    return [task for repeat in repeats for point in repeat for task in point.tasks.values()]
