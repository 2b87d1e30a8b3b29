"""KAR: keep and retrain. A new network is trained and tested on images without their least relevant pixels.

Source: Hooker, Erhan, Kindermans & Kim 2019 (arXiv:1806.10758).
"""

from efface.metrics.shared.orders import retrained

kar = retrained(
    "least_first",
    better="higher",
    caption="The pixels that a map ranks lowest are erased in training and test images, and a new network is trained "
    "on the rest. With a truthful map that network stays accurate.",
)
