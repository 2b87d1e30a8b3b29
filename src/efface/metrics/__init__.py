"""Metrics: formulas over probes, one file each. `metric(name)` finds a metric by its short name or dotted path."""

from efface.metrics.formula import EVERY, Metric, Point, metric, names, own_settings, values_of
from efface.metrics.shared.definition import check_metric, misnamed

__all__ = ["EVERY", "Metric", "Point", "check_metric", "metric", "misnamed", "names", "own_settings", "values_of"]
