"""MoRF: most relevant first. The score of the given network on test images without their most relevant pixels.

Source: Samek et al. 2015, section III (arXiv:1509.06321); relative change: the released code of Khakzar et al. 2021.
"""

from efface.metrics.formula import EVERY, Metric, frozen_values

morf = Metric(
    probes=lambda point: {"erased": point.perturb("most_first"), "clean": point.clean()},
    value=frozen_values,
    direction={
        "accuracy": "lower",
        "probability": "lower",
        "logit_ratio": "lower",
        "drop": "higher",
        "relative_change": "higher",
    },
    by_mean=("drop",),  # AOPC: the mean over the steps, step 0 among them (Samek et al. 2015, equation 12)
    sample="images",
    uses=EVERY,
    caption="The pixels that a map ranks highest are erased, and the same network is scored again without training on "
    "such images. With a truthful map its score falls early.",
)
