"""The network's accuracy, and warnings for metrics that need another metric beside them."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from efface.report.formats import listed
from efface.report.stats import Curve
from efface.stages.run.curves import accuracy_curve, kept_metric
from efface.stages.run.kept_plan import KeptMetric
from efface.stages.run.run import Run
from efface.study.metric_entry import MetricEntry

ACCURACY_SETTINGS = {"unit": "none", "explain": "true", "imputer": "none", "ties": "none", "count": "none"}
"""The facts that the accuracy depends on, in the form of a metric."""


def accuracy(run: Run) -> Curve | None:
    """Return the accuracy on each test image as a curve of one point, or None before training."""
    return accuracy_curve(run.right().numpy().astype(np.float64)) if run.first.trained() else None


def unaccompanied(metrics: Iterable[MetricEntry]) -> Iterator[str]:
    """Yield a sentence for each missing metric that others must be read with."""
    listing = tuple(metrics)
    return unaccompanied_of([kept_metric(entry, listing) for entry in listing])


def unaccompanied_of(metrics: Sequence[KeptMetric]) -> Iterator[str]:
    """Yield the same sentences for metrics as data."""
    paths = {metric.path for metric in metrics}
    wanted = {other.name: other for metric in metrics for other in metric.read_with}
    for other in (companion for companion in wanted.values() if companion.path not in paths):
        names = [metric.name for metric in metrics if other in metric.read_with]
        yield (
            f"Read {listed(names)} together with the network's {other.phrase or other.name}: a network that has learnt "
            "little can score high or low for that reason alone. To measure "
            f"{'both' if len(names) == 1 else 'all of them'}: metrics: [{', '.join((*names, other.name))}]"
        )
