"""The network's accuracy, and warnings for metrics that need another metric beside them."""

from collections.abc import Iterable, Iterator

import numpy as np

from efface.metrics import metric
from efface.report.stats import Curve
from efface.report.words import listed
from efface.stages.run.run import Run
from efface.study.claims import ACCURACY
from efface.study.metric_entry import MetricEntry

HOW = {"unit": "none", "explain": "true", "imputer": "none", "ties": "none", "count": "none"}
"""What the accuracy depends on, in the form of a metric."""


def accuracy(run: Run) -> Curve | None:
    """Return the accuracy on each test image as a curve of one point, or None before training."""
    if not run.first.trained():
        return None
    right = run.right().numpy().astype(np.float64)
    return Curve(
        *(ACCURACY, ACCURACY, "network", (0.0,), right[:, None], "images", "higher"),
        pairs=tuple(range(len(right))),
        caption="The share of the test images that the network classifies right.",
        axis="",
        family="network",
    )


def unaccompanied(metrics: Iterable[MetricEntry]) -> Iterator[str]:
    """Yield a sentence for each missing metric that others must be read with."""
    listing = list(metrics)
    wanted = dict.fromkeys(other for each in listing for other in each.formula.read_with)
    for other in (each for each in wanted if not any(entry.is_of(each) for entry in listing)):
        found = [each.name for each in listing if other in each.formula.read_with]
        yield (
            f"{listed(found)} must be read beside the network's {metric(other).phrase or other}, as a network that has "
            "learnt little can score well or badly for that alone; measure it, too: metrics: "
            f"[{', '.join((*found, other))}]"
        )
