"""Statistics of curves: intervals, paired tests, agreement of metrics, and shares of degenerate maps."""

from efface.metrics.shared.degenerate import Defects, degeneracy
from efface.report.stats.agreement import Agreement, image_agreement, metric_agreement
from efface.report.stats.crossed import Spread, Trained, difference_of_trainings, mean_of_trainings, spreads
from efface.report.stats.curve import Better, Curve, Looks, Over, areas, at_points, lacking, shared, without_empty
from efface.report.stats.drawn import CombinedDraws, combine
from efface.report.stats.family import holm, min_p
from efface.report.stats.interval import NOTHING, Interval, interval
from efface.report.stats.krippendorff import krippendorff_alpha
from efface.report.stats.means import Summary, difference_columns, differences, summaries, summary
from efface.report.stats.paired import Comparison, compare_methods
from efface.report.stats.skewed import Estimate, image_estimates

__all__ = [
    "NOTHING",
    "Agreement",
    "Better",
    "CombinedDraws",
    "Comparison",
    "Curve",
    "Defects",
    "Estimate",
    "Interval",
    "Looks",
    "Over",
    "Spread",
    "Summary",
    "Trained",
    "areas",
    "at_points",
    "combine",
    "compare_methods",
    "degeneracy",
    "difference_columns",
    "difference_of_trainings",
    "differences",
    "holm",
    "image_agreement",
    "image_estimates",
    "interval",
    "krippendorff_alpha",
    "lacking",
    "mean_of_trainings",
    "metric_agreement",
    "min_p",
    "shared",
    "spreads",
    "summaries",
    "summary",
    "without_empty",
]
