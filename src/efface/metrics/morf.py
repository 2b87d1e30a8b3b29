"""MoRF: most relevant first. The given network scored on test images that lose their most relevant pixels.

Source: Samek et al. 2015, section III (arXiv:1509.06321); relative change: the released code of Khakzar et al. 2021.
"""

from efface.metrics.shared.orders import frozen

morf = frozen(
    "most_first",
    better="lower",
    caption="The pixels that a map ranks highest are erased and the same network is asked again, untrained on such "
    "images. A truthful map makes its score move early.",
)
