"""Statistics of curves: intervals, paired tests, agreement of metrics, and shares of degenerate maps."""

from efface.metrics.shared.degenerate import Defects, degeneracy
from efface.report.stats.agreement import Agreement, image_agreement, krippendorff_alpha, metric_agreement
from efface.report.stats.curve import Better, Curve, Over, areas, at_points, lacking, shared, without_empty
from efface.report.stats.means import (
    CombinedDraws,
    Interval,
    Summary,
    bootstrap,
    combine,
    interval,
    mean_intervals,
    summaries,
    summary,
)
from efface.report.stats.paired import Comparison, compare_methods, difference, holm, is_spreadless

__all__ = [
    "Agreement",
    "Better",
    "CombinedDraws",
    "Comparison",
    "Curve",
    "Defects",
    "Interval",
    "Over",
    "Summary",
    "areas",
    "at_points",
    "bootstrap",
    "combine",
    "compare_methods",
    "degeneracy",
    "difference",
    "holm",
    "image_agreement",
    "interval",
    "is_spreadless",
    "krippendorff_alpha",
    "lacking",
    "mean_intervals",
    "metric_agreement",
    "shared",
    "summaries",
    "summary",
    "without_empty",
]
