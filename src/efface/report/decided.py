"""Which pairs of methods a study in rounds has told apart, and which are still open."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from efface.report.stats import Curve, compare_methods, holm, without_empty


class Decision(NamedTuple):
    """Two methods on the first score of a metric.

    p: p value that is corrected for all pairs of all metrics; NaN without a test. In a study in rounds it also allows
        for all rounds.
    """

    metric: str
    first: str
    second: str
    p: float


def decisions(curves: Sequence[Curve]) -> tuple[Decision, ...]:
    """Compare every two methods on the first score of each metric, with one correction for all of them (Holm).

    A pair that was told apart stays so in later rounds, because a p value only falls, and so do the corrected ones.
    """
    firsts: dict[str, list[Curve]] = {}
    scores: dict[str, str] = {}
    for curve in without_empty(curves):
        if curve.family != "network" and curve.score == scores.setdefault(curve.metric, curve.score):
            firsts.setdefault(curve.metric, []).append(curve)
    found = [
        each
        for several in firsts.values()
        for each in compare_methods([curve for curve in several if not np.isnan(curve.values).all()])
    ]
    corrected = holm(np.array([each.p for each in found]))
    return tuple(
        Decision(each.metric, each.first, each.second, float(p)) for each, p in zip(found, corrected, strict=True)
    )
