"""Metrics: formulas over probes, a file each. `metric(name)` finds one by its short name or dotted path."""

from efface.metrics.formula import Metric, Point, metric, names, own_settings

__all__ = ["Metric", "Point", "metric", "names", "own_settings"]
