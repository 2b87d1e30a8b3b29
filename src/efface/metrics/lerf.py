"""LeRF: least relevant first. The score of the given network on test images without their least relevant pixels.

Source: Ancona et al. 2018, section 4 (arXiv:1711.06104); relative change: the released code of Khakzar et al. 2021.
"""

from efface.metrics.formula import EVERY, Metric, frozen_values

lerf = Metric(
    probes=lambda point: {"erased": point.perturb("least_first"), "clean": point.clean()},
    value=frozen_values,
    direction={
        "accuracy": "higher",
        "probability": "higher",
        "logit_ratio": "higher",
        "drop": "lower",
        "relative_change": "lower",
    },
    by_mean=("drop",),  # AOPC: the mean over the steps, step 0 among them (Samek et al. 2015, equation 12)
    sample="images",
    uses=EVERY,
    caption="The pixels that a map ranks lowest are erased, and the same network is scored again without training on "
    "such images. With a truthful map its score hardly changes.",
)
