"""Panels from curves: means with intervals, and verdicts that are corrected for all comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from efface.report.formats import is_share
from efface.report.stats import (
    NOTHING,
    Curve,
    Estimate,
    Interval,
    Summary,
    combine,
    difference_columns,
    differences,
    holm,
    lacking,
    min_p,
    summaries,
    without_empty,
)
from efface.report.stats.skewed import By
from efface.report.table import ALPHA, FAMILIES, Kind, Panel, Row, Verdict, is_awaited


def panels(curves: Sequence[Curve], references: Sequence[str] = (), kind: Kind = "method") -> tuple[Panel, ...]:
    """Return one panel for each metric and score, by family, then in the order of the curves.

    Curves that are draws of one method (`draw_of`) become one row. Points without a value of any method are left out.

    The verdicts on the first score of each metric are corrected together, for all methods and metrics: the probability
    of at least one false "better" or "worse" among them is at most 0.05. Those on a further score are corrected for the
    methods of its panel.

    references: names of rows; the others are compared with the first of these that a metric has.
    kind: kind of the rows.
    """
    curves = without_empty(curves)
    metrics: dict[str, dict[str, list[Curve]]] = {}
    for curve in curves:
        metrics.setdefault(curve.metric, {}).setdefault(curve.score, []).append(curve)
    made = [_tested(list(scores.values()), references, kind) for scores in metrics.values()]
    judged: list[Panel] = []
    for first, (_, *others) in zip(_corrected([of_metric[0] for of_metric in made]), made, strict=True):
        judged += [first, *(panel for other in others for panel in _corrected([other]))]
    known = {family: place for place, family in enumerate(FAMILIES)}
    return tuple(sorted(judged, key=lambda panel: known.get(panel.family, len(known))))


@dataclass(frozen=True)
class _Method:
    """A method's curve, which is the mean of its draws."""

    curve: Curve
    draws: int
    between: float
    awaited: int


class _Tested(NamedTuple):
    """A panel without verdicts, and for each method the test against the reference and the two curves."""

    panel: Panel
    tests: Mapping[str, tuple[Estimate, tuple[Curve, Curve]]]


def _corrected(several: Sequence[_Tested]) -> list[Panel]:
    """Return the panels with verdicts that are corrected for all their comparisons together."""
    tests = [(i, name, *test) for i, one in enumerate(several) for name, test in one.tests.items()]
    own = np.array([estimate.p for _, _, estimate, _ in tests])
    rounds = any(curve.looks is not None for *_, pair in tests for curve in pair)
    if rounds:  # the signs of an image cannot be drawn: how many images there are depends on them
        p = dict(zip(((i, name) for i, name, *_ in tests), holm(own), strict=True))
        return [_with_verdicts(i, one, p, own) for i, one in enumerate(several)]
    frozen = [i for i, (_, _, _, pair) in enumerate(tests) if pair[0].sample == "images"]
    values, _ = difference_columns([tests[i][3] for i in frozen]) if frozen else (np.empty((0, 0)), ())
    by_sign = np.array([tests[i][2].by == "tango" for i in frozen], dtype=bool)
    corrected = min_p(own, values, tuple(frozen), by_sign, [tests[i][0] for i in frozen])
    p = dict(zip(((i, name) for i, name, _, _ in tests), corrected, strict=True))
    return [_with_verdicts(i, one, p, own) for i, one in enumerate(several)]


def _with_verdicts(i: int, one: _Tested, p: Mapping[tuple[int, str], float], own: np.ndarray) -> Panel:
    rows = tuple(_judged(row, one.panel, float(p.get((i, row.method), np.nan))) for row in one.panel.rows)
    return replace(one.panel, rows=rows, corrected=int((~np.isnan(own)).sum()))


def _judged(row: Row, panel: Panel, p: float) -> Row:
    if row.verdict != "same":
        return row
    if np.isnan(p):
        return replace(row, verdict="undecided")
    if p >= ALPHA:
        return replace(row, p=p)
    better = (row.difference.mean > 0) == (panel.direction == "higher")
    return replace(row, verdict="better" if better else "worse", p=p)


def _tested(groups: list[list[Curve]], references: Sequence[str], kind: Kind) -> list[_Tested]:
    """Return the panels of one metric. Their intervals are made together, which is faster."""
    sides = [_combined(group) for group in groups]
    # The keys are identities: two methods may have equal curves, and arrays cannot be keys.
    wanted = [method.curve for side in sides for method in side]
    by_id = dict(zip(map(id, wanted), summaries(wanted), strict=True))
    return [_panel(side, by_id, references, kind) for side in sides]


def _combined(curves: list[Curve]) -> list[_Method]:
    first, draws = curves[0], dict[str, list[Curve]]()
    for curve in curves:
        draws.setdefault(curve.draw_of or curve.method, []).append(curve)
    names = [curve.method for curve in curves]
    if len(set(names)) < len(names):
        raise ValueError(f"{first.metric}/{first.score}: a method has two curves among {sorted(names)}; name each once")
    methods = []
    for name, drawn in draws.items():
        measured = [curve for curve in drawn if not np.isnan(curve.values).all()] or drawn[:1]
        whole = combine(measured, name)
        failed = next((curve.failed for curve in drawn if curve.failed), "")
        methods.append(
            _Method(replace(whole.curve, failed=failed), whole.draws, whole.between, len(drawn) - len(measured))
        )
    return methods


def _compared(
    methods: list[_Method], reference: Curve | None, kind: Kind
) -> dict[str, tuple[Estimate, tuple[Curve, Curve]]]:
    """Return for each method the test against the reference, and the two curves."""
    if reference is None or reference.direction == "none":
        return {}
    pairs = [
        (method.curve, reference)
        for method in methods
        if method.curve.method != reference.method and not method.curve.failed
    ]
    estimates = differences(pairs)
    if kind == "network" and reference.trained != "networks":  # other trainings of these networks may differ more
        estimates = tuple(Estimate(estimate.interval, np.nan, estimate.by) for estimate in estimates)
    return {pair[0].method: (estimate, pair) for pair, estimate in zip(pairs, estimates, strict=True)}


def _panel(methods: list[_Method], by_id: Mapping[int, Summary], references: Sequence[str], kind: Kind) -> _Tested:
    first = methods[0].curve
    names = [method.curve.method for method in methods if not method.curve.failed]
    reference = next((name for name in references if name in names), "")
    if first.direction != "none":
        sign = -1 if first.direction == "higher" else 1
        means = {id(method): by_id[id(method.curve)].area.mean for method in methods}
        ordered = {identity: sign * np.nan_to_num(mean, nan=sign * np.inf) for identity, mean in means.items()}
        methods = sorted(
            methods, key=lambda method: (bool(method.curve.failed), bool(lacking(method.curve)), ordered[id(method)])
        )
    control = next((method.curve for method in methods if method.curve.method == reference), None)
    compared = _compared(methods, control, kind)
    fixed = fixed_points([method.curve for method in methods])
    rows = []
    for method in methods:
        area, cells, by = by_id[id(method.curve)]
        cells = tuple(
            cell._replace(low=np.nan, high=np.nan) if at in fixed else cell
            for at, cell in zip(first.at, cells, strict=True)
        )
        test = compared[method.curve.method][0] if method.curve.method in compared else None
        apart = NOTHING if test is None else test.interval
        verdict = _verdict(method.curve, area, apart, control)
        if verdict == "same" and kind == "network" and first.trained != "networks":
            verdict = "single"
        drawn = (method.draws, method.between, method.awaited)
        tested: By = "none" if test is None else test.by
        rows.append(Row(method.curve.method, method.curve, cells, area, by, 0, apart, verdict, np.nan, tested, *drawn))
    stands: Literal["area", "mean", "value"] = "value" if len(first.at) == 1 else first.summary
    alike = ("metric", "score", "sample", "direction", "axis", "family", "empty", "opposite", "value_unit")
    panel = Panel(
        **{name: getattr(first, name) for name in alike},
        fractions=first.at,
        fixed=fixed,
        stands=stands,
        reference=reference,
        rows=tuple(rows),
        kind=kind,
        over=max((row.curve.over for row in rows), key=len),
    )
    return _Tested(panel, compared)


def fixed_points(curves: Sequence[Curve]) -> tuple[float, ...]:
    """Return the points at which nothing or all is changed, if every sample of every method has the same value there.

    An example is 0 % removed: there the difference of two orders of erasing is 0 whatever network is trained. So other
    samples would change nothing, and the mean has no interval. The ends of a score's range do not count: all images may
    be classified correctly by chance. An exception is the likeness of a map with itself, which is 1.
    """
    first = curves[0]
    if not first.axis:
        return ()
    ends = (0.0, 1.0) if is_share(first.axis) else (0.0,)
    known = () if first.bounds is None or first.family == "randomisation" else first.bounds
    fixed = []
    for i, at in ((i, at) for i, at in enumerate(first.at) if at in ends):
        samples = [(curve.values if curve.images is None else curve.images)[:, i].ravel() for curve in curves]
        values = np.concatenate(samples)
        values = values[~np.isnan(values)]
        if len(values) > 1 and np.ptp(values) == 0 and values[0] not in known:
            fixed.append(at)
    return tuple(fixed)


def _verdict(curve: Curve, area: Interval, apart: Interval, reference: Curve | None) -> Verdict:
    """Return the verdict before the comparisons are corrected: "same" for each method that is to be judged."""
    if curve.failed or area.n == 0:
        return "failed" if curve.failed else "missing" if is_awaited(curve) else "undefined"
    if reference is not None and curve.method == reference.method:
        return "control"
    if curve.direction == "none":
        return "described"
    if reference is None:
        return "alone"
    if apart.n == 0:
        return "missing" if is_awaited(reference) or is_awaited(curve) else "undefined"
    return "single" if apart.n == 1 else "same"
