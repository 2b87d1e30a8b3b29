"""Which pairs of methods a study in rounds has told apart, and which are still open."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from efface.report.between import Pairs
from efface.report.stats import Curve, compare_methods, holm, without_empty
from efface.report.table import ALPHA


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
    comparisons = [
        comparison
        for several in firsts.values()
        for comparison in compare_methods([curve for curve in several if not np.isnan(curve.values).all()])
    ]
    corrected = holm(np.array([comparison.p for comparison in comparisons]))
    return tuple(
        Decision(comparison.metric, comparison.first, comparison.second, float(p))
        for comparison, p in zip(comparisons, corrected, strict=True)
    )


class Rounds(NamedTuple):
    """How far a metric that is measured in rounds was decided.

    decided: number of pairs of methods that are told apart. pairs: number of all pairs. least, most: images or repeats
    that the methods have. planned: those of the whole study. share: those of all methods together, as a share of the
    planned ones. together: pairs that are not told apart.
    """

    metric: str
    sample: str
    decided: int
    pairs: int
    least: int
    most: int
    planned: int
    share: float
    together: tuple[tuple[str, str], ...]


def rounds(several: Sequence[Pairs]) -> list[Rounds]:
    """Return how far each metric was decided, for those that are measured in rounds."""
    all_rounds = []
    for one in several:
        curves = [row.curve for row in one.panel.rows if row.method in one.methods]
        looks = next((curve.looks for curve in curves if curve.looks is not None), None)
        if looks is None:
            continue
        counts = [len(curve.values) for curve in curves]
        together = tuple(names for names, comparison in one.found.items() if not comparison.p_corrected < looks.level)
        share = sum(counts) / (len(counts) * looks.after[-1])
        decided = len(one.found) - len(together)
        of = (one.panel.metric, one.panel.sample)
        all_rounds.append(
            Rounds(*of, decided, len(one.found), min(counts), max(counts), looks.after[-1], share, together)
        )
    return all_rounds


def rounds_sentences(all_rounds: Sequence[Rounds], level: float, passes: float) -> list[str]:
    """Return what was decided, and at what cost. passes: share of the planned forward passes; NaN if unknown."""
    decided, pairs = sum(metric.decided for metric in all_rounds), sum(metric.pairs for metric in all_rounds)
    wrong = f"at most {level:.2g}, for all metrics and all rounds together"
    lines = [
        "This study measured in rounds. It stopped comparing two methods when they were told apart.",
        f"{decided} of {pairs} pairs of methods are told apart.",
        f"The probability that any of these decisions is false is {wrong}.",
    ]
    if not np.isnan(passes):
        lines.append(f"Its metrics in rounds took {100 * passes:.0f} % of the forward passes of all their samples.")
    if level != ALPHA:
        lines.append(f"The letters, ranks and verdicts below have a level of {ALPHA}.")
    return [*lines, "Intervals and p values on this page hold at whatever round the study stops."]
