"""Comparisons between methods (the pairs that differ) and between metrics (the agreement of their rankings)."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from efface.report.stats import Agreement, Comparison, compare_methods, image_agreement, metric_agreement
from efface.report.table import Panel, Row
from efface.report.words import listed, number

ALPHA = 0.05
"""Probability of at least one false difference among all pairs of a metric."""
_CLOSE = ((0.8, "nearly alike"), (0.5, "much alike"), (0.2, "somewhat alike"), (-0.2, "with little in common"))


@dataclass(frozen=True)
class Pairs:
    """Comparisons of every two methods of a panel. The method with the better area is the first of the two.

    panel: the panel.
    methods: methods with samples, in the order of the panel.
    found: the comparison of each two methods, in that order.
    """

    panel: Panel
    methods: tuple[str, ...]
    found: Mapping[tuple[str, str], Comparison]

    @property
    def apart(self) -> int:
        """Number of pairs that differ significantly, with a correction for all pairs."""
        return sum(each.p_holm < ALPHA for each in self.found.values())


@dataclass(frozen=True)
class Agreements:
    """Agreement of the rankings of methods by metrics, and by the images of one metric. Controls are left out.

    panels: the compared panels.
    tau: Kendall's tau-b of each two metrics.
    alpha: Krippendorff's alpha of each metric that has images as samples.
    """

    panels: tuple[Panel, ...]
    tau: Mapping[tuple[str, str], Agreement]
    alpha: Mapping[str, Agreement]


def pairs(panel: Panel) -> Pairs:
    """Compare every two methods of the panel. With fewer than two methods, the result has no comparisons."""
    rows = [row for row in panel.rows if row.area.n and row.curve.pairs]
    found = compare_methods([row.curve for row in rows]) if len(rows) > 1 else ()
    return Pairs(panel, tuple(row.method for row in rows), {(each.first, each.second): each for each in found})


def agreements(firsts: Sequence[Panel]) -> Agreements:
    """Compare every two metrics that rank methods, by the first score of each, over all methods but controls."""
    judging = tuple(panel for panel in firsts if panel.direction != "none" and len(_methods(panel)) > 1)
    ranked = {panel.metric: [row.curve for row in _methods(panel)] for panel in judging}
    tau = {
        (one, two): metric_agreement(ranked[one], ranked[two])
        for one, two in itertools.combinations(ranked, 2)
        if len({curve.method for curve in ranked[one]} & {curve.method for curve in ranked[two]}) > 1
    }
    alpha = {panel.metric: image_agreement(ranked[panel.metric]) for panel in judging if panel.sample == "images"}
    return Agreements(judging, tau, alpha)


def pairs_sentence(found: Pairs) -> str:
    """Return how many pairs differ significantly, in a phrase."""
    if not found.found:
        return "fewer than two methods to compare"
    untested = sum(each.test == "none" for each in found.found.values())
    apart = f"{found.apart} of {len(found.found)} pairs differ significantly"
    return f"{apart}, {untested} could not be tested" if untested else apart


def agreement_sentences(found: Agreements) -> list[str]:
    """Return sentences on which metrics agree and which contradict each other."""
    known = {names: each for names, each in found.tau.items() if not np.isnan(each.value)}
    opposites = {(panel.metric, panel.opposite) for panel in found.panels}
    pairs = [(one, other) for one, other in known if {(one, other), (other, one)} & opposites]
    lines = [f"{one} and {other} rank the methods {_likeness(known[one, other])}." for one, other in pairs]
    if len(known) > 1:
        in_order = sorted(known, key=lambda names: known[names].value)
        for words, names in (("Closest", in_order[-1]), ("Farthest apart", in_order[0])):
            lines.append(f"{words}: {names[0]} and {names[1]}, {_likeness(known[names])}.")
    images = {metric: each.value for metric, each in found.alpha.items() if not np.isnan(each.value)}
    if images:
        most, least = max(images, key=lambda name: images[name]), min(images, key=lambda name: images[name])
        ends = f"most on {most} (alpha {number(images[most])})"
        ends += f", least on {least} ({number(images[least])})" if least != most else ""
        lines.append(f"Single images agree on the ranking {ends}. 0 is chance, 1 is complete agreement.")
    few = sorted({panel.metric for panel in found.panels if len(_methods(panel)) < 5})
    if few and known:
        lines.append(
            f"Fewer than five methods were ranked on {listed(few, 3)}. Few orders are possible, so it means little."
        )
    return lines


def _likeness(each: Agreement) -> str:
    word = next((word for edge, word in _CLOSE if each.value >= edge), "against one another")
    ends = f", {number(each.low)} to {number(each.high)}" if not np.isnan(each.low) else ""
    doubt = "; compatible with chance" if each.low <= 0 <= each.high else ""
    return f"{word} (tau {number(each.value)}{ends}{doubt})"


def _methods(panel: Panel) -> list[Row]:
    return [row for row in panel.rows if row.area.n and row.curve.pairs and not row.is_control]
