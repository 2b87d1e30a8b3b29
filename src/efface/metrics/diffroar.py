"""DiffROAR: KAR minus ROAR at the same fraction. It costs nothing once these two have run.

Source: Shah, Jain & Netrapalli 2021, section 3 (arXiv:2102.12781).
"""

from collections.abc import Mapping

import numpy as np

from efface.metrics.formula import EVERY, Metric
from efface.metrics.shared.orders import SIGNED
from efface.store.results import Score


def _gain(scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    kept, removed = (scores[name].values["accuracy"].astype(np.float64) for name in ("kept", "removed"))
    return {"accuracy": kept - removed}


diffroar = Metric(
    probes=lambda point: {"kept": point.retrain("least_first"), "removed": point.retrain("most_first")},
    value=_gain,
    direction={"accuracy": "higher"},
    ranges={"accuracy": SIGNED},
    sample="repeats",
    uses=EVERY,
    read_with=("robust_accuracy",),
    family="retraining",
    outline="both",
    caption="KAR minus ROAR at the same fraction: how much more a network can learn from the pixels that a map ranks "
    "highest than from those it ranks lowest.",
)
