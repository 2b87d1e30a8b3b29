"""The tables of a report as data frames. The report writes them as CSV files."""

from collections.abc import Mapping, Sequence

import pandas as pd

from efface.report.between import Agreements, Pairs
from efface.report.table import HOW, Panel


def summary_table(panels: Sequence[Panel], how: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """Return a line for each metric, score, method and point. Area and difference are repeated in each line of a curve.

    The column `fraction` has the point, also for axes that are no fractions.

    panels: the panels.
    how: for each metric, the settings that its numbers depend on.
    """
    columns = ["metric", "score", "method", "fraction", "mean", "std", "low", "high", "n", "over", "better"]
    columns += ["area", "area_low", "area_high"]
    columns += ["random_difference", "random_difference_low", "random_difference_high", "random_p"]
    columns += ["family", "axis", "stands", "interval", "draws", "between_draws", *HOW]
    lines = [
        (
            *(panel.metric, panel.score, row.method, fraction, *cell, panel.over, panel.direction),
            *(row.area.mean, row.area.low, row.area.high),
            *(row.difference.mean, row.difference.low, row.difference.high, row.p),
            *(panel.family, panel.axis, panel.stands, row.by, row.draws, row.between),
            *(how.get(panel.metric, {}).get(setting, "") for setting in HOW),
        )
        for panel in panels
        for row in panel.rows
        for fraction, cell in zip(panel.fractions, row.intervals, strict=True)
    ]
    return pd.DataFrame(lines, columns=columns)


def comparisons_table(compared: Sequence[Pairs]) -> pd.DataFrame:
    """Return a line for each metric and pair of methods."""
    columns = [
        "metric",
        "score",
        "first",
        "second",
        "better",
        "difference",
        "low",
        "high",
        "n",
        "by",
        "p",
        "p_corrected",
    ]
    columns += ["effect", "common_language"]
    lines = [
        (
            *(comparison.metric, comparison.score, comparison.first, comparison.second, one.panel.direction),
            *(
                comparison.difference.mean,
                comparison.difference.low,
                comparison.difference.high,
                comparison.difference.n,
            ),
            *(comparison.by, comparison.p, comparison.p_corrected, comparison.effect, comparison.common_language),
        )
        for one in compared
        for comparison in one.found.values()
    ]
    return pd.DataFrame(lines, columns=columns)


def agreement_table(agreements: Agreements) -> pd.DataFrame:
    """Return a line for each two metrics (Kendall's tau-b) and for each metric (Krippendorff's alpha over images).

    The column `n` has the number of methods.
    """
    scores = {panel.metric: panel.score for panel in agreements.panels}
    columns = ["kind", "metric", "score", "other", "other_score", "value", "low", "high", "n", "p"]
    lines = [
        ("kendall_tau_b", one, scores[one], two, scores[two], *agreement)
        for (one, two), agreement in agreements.tau.items()
    ] + [
        ("krippendorff_alpha", metric, scores[metric], "", "", *agreement)
        for metric, agreement in agreements.alpha.items()
    ]
    return pd.DataFrame(lines, columns=columns)
