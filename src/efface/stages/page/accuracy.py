"""The network's own accuracy, and the metrics that say little without it."""

from collections.abc import Iterable, Iterator

import numpy as np

from efface.report.stats import Curve
from efface.report.words import listed
from efface.stages.run.run import Run
from efface.study.claims import ACCURACY
from efface.study.schema import MetricEntry

HOW = {"unit": "none", "explain": "true", "imputer": "none", "ties": "none", "count": "none"}
"""What it depends on, as of any metric."""
_ROBUST = "robust_accuracy"
_BESIDE = ("diffroar", "leakage", "signal_rank")


def accuracy(run: Run) -> Curve | None:
    """Whether each test image is classified right, as a curve of one point; None before the network is there."""
    if not run.first.trained():
        return None
    right = run.right().numpy().astype(np.float64)
    return Curve(
        *(ACCURACY, ACCURACY, "network", (0.0,), right[:, None], "images", "higher"),
        pairs=tuple(range(len(right))),
        says="The share of the test images that the network classifies right.",
        axis="",
        family="network",
    )


def unaccompanied(metrics: Iterable[MetricEntry]) -> Iterator[str]:
    """A sentence on those of the metrics that must be read beside the network's robust accuracy, if it is not there."""
    kinds = {each.name: (each.metric or each.name).rpartition(".")[2] for each in metrics}
    found = [name for name, kind in kinds.items() if kind in _BESIDE]
    if found and _ROBUST not in kinds.values():
        yield (
            f"{listed(found)} must be read beside the network's clean and robust accuracy, as a network that has "
            "learnt little can score well or badly for that alone; measure it, too: metrics: "
            f"[{', '.join((*found, _ROBUST))}]"
        )
