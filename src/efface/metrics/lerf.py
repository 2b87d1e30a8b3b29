"""LeRF: least relevant first. The score of the given network on test images without their least relevant pixels.

Source: Ancona et al. 2018, section 4 (arXiv:1711.06104); relative change: the released code of Khakzar et al. 2021.
"""

from dataclasses import replace

from efface.metrics.shared.orders import frozen

lerf = replace(
    frozen(
        "least_first",
        better="higher",
        caption="The pixels that a map ranks lowest are erased, and the same network is scored again without training "
        "on such images. With a truthful map its score hardly changes.",
    ),
    opposite="morf",
    value_units={"relative_change": "%"},
)
