"""LeRF: least relevant first. The given network scored on test images that lose their least relevant pixels.

Source: Ancona et al. 2018, section 4 (arXiv:1711.06104); relative change: the released code of Khakzar et al. 2021.
"""

from efface.metrics.shared.orders import frozen

lerf = frozen(
    "least_first",
    better="higher",
    caption="The pixels that a map ranks lowest are erased and the same network is asked again, untrained on such "
    "images. A truthful map leaves its score where it was.",
)
