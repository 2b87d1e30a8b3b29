"""DiffROAR: KAR minus ROAR at the same fraction. It costs nothing once these two have run.

Source: Shah, Jain & Netrapalli 2021, section 3 (arXiv:2102.12781).
"""

from efface.metrics.formula import EVERY, Metric

diffroar = Metric(
    probes=lambda point: {"kept": point.retrain("least_first"), "removed": point.retrain("most_first")},
    value=lambda scores: {"accuracy": scores["kept"].mean("accuracy") - scores["removed"].mean("accuracy")},
    direction={"accuracy": "higher"},
    sample="repeats",
    uses=EVERY,
    read_with=("robust_accuracy",),
    family="retraining",
    caption="KAR minus ROAR at the same fraction: how much more a network can learn from the pixels that a map ranks "
    "highest than from those it ranks lowest.",
)
