"""Comparisons between methods (the pairs that differ) and between metrics (the agreement of their rankings)."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from efface.report.formats import listed, number, p_value, two_digits
from efface.report.stats import (
    Agreement,
    Comparison,
    Curve,
    compare_methods,
    difference_columns,
    holm,
    image_agreement,
    min_p,
)
from efface.report.stats.agreement import ranking, ranking_agreement
from efface.report.table import ALPHA, Panel, Row

MOST_FLIPPED = 4000
"""Largest number of comparisons that are corrected by sign-flips. They take a few seconds."""
_CLOSE = ((0.8, "nearly alike"), (0.5, "much alike"), (0.2, "somewhat alike"), (-0.2, "with little in common"))


@dataclass(frozen=True)
class Pairs:
    """Comparisons of every two methods of a panel. The method with the better area is the first of the two.

    panel: the panel.
    methods: methods with samples, in the order of the panel.
    found: the comparison of each two methods, in that order. `p_corrected` is corrected for all pairs of all metrics.
    """

    panel: Panel
    methods: tuple[str, ...]
    found: Mapping[tuple[str, str], Comparison]

    @property
    def apart(self) -> int:
        """Number of pairs that differ significantly, with a correction for all pairs of all metrics."""
        return sum(comparison.p_corrected < ALPHA for comparison in self.found.values())

    @property
    def tested(self) -> int:
        """Number of pairs with a test."""
        return sum(not np.isnan(comparison.p) for comparison in self.found.values())

    def better(self, one: str, two: str) -> bool:
        """Return whether the first method is shown to be better than the second."""
        comparison, sign = self.found.get((one, two)), 1
        if comparison is None:
            comparison, sign = self.found.get((two, one)), -1
        return comparison is not None and comparison.p_corrected < ALPHA and _toward(comparison, self.panel) * sign > 0

    @property
    def letters(self) -> Mapping[str, str]:
        """Letters of each method: two methods without a common letter are shown to differ.

        Source: Piepho 2004, An algorithm for a letter-based representation of all-pairwise comparisons (JCGS 13, 456).
        """
        columns = [set(self.methods)]
        for (one, two), comparison in self.found.items():
            if not comparison.p_corrected < ALPHA:
                continue
            for column in [both for both in columns if one in both and two in both]:
                columns.remove(column)
                for less in (column - {one}, column - {two}):
                    if not any(less <= other for other in columns):
                        columns = [*(other for other in columns if not other < less), less]
        place = {name: i for i, name in enumerate(self.methods)}
        columns.sort(key=lambda column: sorted(place[name] for name in column))
        return {
            name: "".join(_letter(i) for i, column in enumerate(columns) if name in column) for name in self.methods
        }


@dataclass(frozen=True)
class Agreements:
    """Agreement of the rankings of methods by metrics, and by the images of one metric. Controls are left out.

    panels: the compared panels.
    tau: Kendall's tau-b of each two metrics. Its p is corrected for all two metrics (Holm).
    alpha: Krippendorff's alpha of each metric that has images as samples.
    """

    panels: tuple[Panel, ...]
    tau: Mapping[tuple[str, str], Agreement]
    alpha: Mapping[str, Agreement]


def pairs(several: Sequence[Panel]) -> list[Pairs]:
    """Compare every two methods of each panel, and correct all these comparisons together.

    The correction is `min_p`; that of Holm, which is a little stricter, if there are too many comparisons.
    """
    rows = [[row for row in panel.rows if _is_compared(row) and not _trained_once(panel)] for panel in several]
    compared = [compare_methods([row.curve for row in panel_rows]) for panel_rows in rows]
    p = iter(_corrected(rows, compared))
    return [
        Pairs(
            panel,
            tuple(row.method for row in panel_rows),
            {(one.first, one.second): replace(one, p_corrected=next(p)) for one in comparisons},
        )
        for panel, panel_rows, comparisons in zip(several, rows, compared, strict=True)
    ]


def _corrected(rows: Sequence[Sequence[Row]], compared: Sequence[Sequence[Comparison]]) -> list[float]:
    """Return the p value of each comparison, corrected for all of them."""
    own = np.array([one.p for comparisons in compared for one in comparisons])
    rounds = any(row.curve.looks is not None for panel_rows in rows for row in panel_rows)
    if rounds or len(own) > MOST_FLIPPED:
        return [float(value) for value in holm(own)]
    places = iter(range(len(own)))
    curves: list[tuple[Curve, Curve]] = []
    tests: list[int] = []
    by_sign: list[bool] = []
    groups: list[int] = []
    for group, (of_panel, comparisons) in enumerate(zip(rows, compared, strict=True)):
        named = {row.method: row.curve for row in of_panel}
        for one in comparisons:
            test = next(places)
            if named[one.first].sample == "images":
                curves.append((named[one.first], named[one.second]))
                tests.append(test)
                by_sign.append(one.by == "tango")
                groups.append(group)
    values, _ = difference_columns(curves) if curves else (np.empty((0, 0)), ())
    return [float(value) for value in min_p(own, values, tuple(tests), np.array(by_sign, dtype=bool), groups)]


def with_ranks(compared: Pairs) -> Panel:
    """Return the panel with the ranks of its methods: 1, and the number of methods that are shown to be better."""
    panel = compared.panel
    if panel.direction == "none" or panel.unfinished or (panel.family == "network" and panel.kind == "method"):
        return panel
    ranked = set(compared.methods)
    rows = tuple(
        replace(row, rank=1 + sum(compared.better(other, row.method) for other in compared.methods))
        if row.method in ranked
        else row
        for row in panel.rows
    )
    return replace(panel, rows=rows)


def agreements(firsts: Sequence[Panel]) -> Agreements:
    """Compare every two metrics that rank methods, by the first score of each, over all methods but controls."""
    judging = tuple(panel for panel in firsts if panel.direction != "none" and len(methods_of(panel)) > 1)
    ranked = {panel.metric: [row.curve for row in methods_of(panel)] for panel in judging}
    rankings = {metric: ranking(curves) for metric, curves in ranked.items()}
    tau = {
        (one, two): ranking_agreement(rankings[one], rankings[two])
        for one, two in itertools.combinations(rankings, 2)
        if len({*rankings[one].methods} & {*rankings[two].methods}) > 1
    }
    p = holm(np.array([agreement.p for agreement in tau.values()]))
    tau = {names: agreement._replace(p=float(q)) for (names, agreement), q in zip(tau.items(), p, strict=True)}
    alpha = {panel.metric: image_agreement(ranked[panel.metric]) for panel in judging if panel.sample == "images"}
    return Agreements(judging, tau, alpha)


def pairs_sentence(compared: Pairs) -> str:
    """Return how many pairs differ significantly, in a phrase."""
    if not compared.found:
        return "fewer than two methods to compare"
    apart = f"{compared.apart} of {len(compared.found)} pairs differ significantly"
    untested = len(compared.found) - compared.tested
    return f"{apart}, {untested} could not be tested" if untested else apart


def pairs_of_best(compared: Pairs, most: int = 12) -> list[Comparison]:
    """Return the comparisons of the best method with the others, those with the best means first."""
    best = compared.methods[0] if compared.methods else ""
    return [one for one in compared.found.values() if one.first == best][:most]


def agreement_sentences(coefficients: Agreements) -> list[str]:
    """Return sentences on which metrics agree and which contradict each other."""
    known = {names: agreement for names, agreement in coefficients.tau.items() if not np.isnan(agreement.value)}
    opposites = {(panel.metric, panel.opposite) for panel in coefficients.panels}
    pairs = [(one, other) for one, other in known if {(one, other), (other, one)} & opposites]
    lines = [f"{one} and {other} rank the methods {_likeness(known[one, other])}." for one, other in pairs]
    if len(known) > 1:
        in_order = sorted(known, key=lambda names: known[names].value)
        for words, names in (("closest", in_order[-1]), ("farthest apart", in_order[0])):
            lines.append(f"{names[0]} and {names[1]} are {words}: they rank the methods {_likeness(known[names])}.")
    images = {
        metric: agreement.value for metric, agreement in coefficients.alpha.items() if not np.isnan(agreement.value)
    }
    if images:
        most, least = max(images, key=lambda name: images[name]), min(images, key=lambda name: images[name])
        ends = f"on {most} (alpha {number(images[most])})"
        ends = f"most {ends}, and least on {least} ({number(images[least])})" if least != most else ends
        lines.append(f"Single images agree on the ranking of the methods {ends}.")
        lines.append("An alpha of 0 is that of chance, and 1 is complete agreement.")
    few = sorted({panel.metric for panel in coefficients.panels if len(methods_of(panel)) < 5})
    if few and known:
        lines.append(
            f"Fewer than five methods were ranked on {listed(few, 3)}. No two metrics can be shown to agree by so few, "
            "and there is no interval."
        )
    return lines


def tau_tip(agreement: Agreement, one: str, two: str) -> str:
    """Return the agreement of two metrics in sentences."""
    lines = [f"Kendall's tau of {one} and {two} is {two_digits(agreement.value)} over {agreement.n} methods."]
    return " ".join([*lines, *_ends_and_p(agreement, "the methods are ranked without relation")])


def alpha_tip(agreement: Agreement, metric: str) -> str:
    """Return the agreement of the images of a metric in sentences."""
    lines = [f"Krippendorff's alpha of the images on {metric} is {two_digits(agreement.value)}."]
    return " ".join([*lines, *_ends_and_p(agreement, "the images do not agree")])


def _ends_and_p(agreement: Agreement, otherwise: str) -> list[str]:
    lines = []
    if not np.isnan(agreement.low):
        lines.append(f"Its 95 % interval is from {two_digits(agreement.low)} to {two_digits(agreement.high)}.")
    if not np.isnan(agreement.p):
        lines.append(f"The p value of the hypothesis that {otherwise} is {p_value(agreement.p)}.")
    return lines


def _likeness(agreement: Agreement) -> str:
    word = next((word for edge, word in _CLOSE if agreement.value >= edge), "against one another")
    ends = f", {number(agreement.low)} to {number(agreement.high)}" if not np.isnan(agreement.low) else ""
    doubt = "; not told apart from chance after the correction for all pairs" if not agreement.p < ALPHA else ""
    return f"{word} (tau {number(agreement.value)}{ends}{doubt})"


def _trained_once(panel: Panel) -> bool:
    """Return whether the rows are networks of one training each, which show nothing about other trainings."""
    return panel.kind == "network" and any(row.curve.trained != "networks" for row in panel.rows)


def methods_of(panel: Panel) -> list[Row]:
    """Return the rows of a panel whose orders are compared: those with values that are no controls."""
    return [row for row in panel.rows if _is_compared(row) and not row.is_control]


def _is_compared(row: Row) -> bool:
    return bool(row.area.n and row.curve.pairs) and not row.curve.failed


def _toward(comparison: Comparison, panel: Panel) -> float:
    """Return the difference in favour of the first method."""
    return comparison.difference.mean * (-1 if panel.direction == "lower" else 1)


def _letter(place: int) -> str:
    """Return a, b, ..., z, A, ..., Z, then a2, b2, ..."""
    known = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    again, letter = divmod(place, len(known))
    return known[letter] + (str(again + 1) if again else "")
