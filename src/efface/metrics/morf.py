"""MoRF: most relevant first. The score of the given network on test images without their most relevant pixels.

Source: Samek et al. 2015, section III (arXiv:1509.06321); relative change: the released code of Khakzar et al. 2021.
"""

from dataclasses import replace

from efface.metrics.shared.orders import frozen

morf = replace(
    frozen(
        "most_first",
        better="lower",
        caption="The pixels that a map ranks highest are erased, and the same network is scored again without training "
        "on such images. With a truthful map its score falls early.",
    ),
    opposite="lerf",
    value_units={"relative_change": "%"},
)
