"""Metrics: formulas over probes, one file each. `metric(name)` finds a metric by its short name or dotted path."""

from efface.metrics.formula import EVERY, Metric, Point, check_metric, metric, misnamed, names, own_settings, values_of

__all__ = ["EVERY", "Metric", "Point", "check_metric", "metric", "misnamed", "names", "own_settings", "values_of"]
