"""ROAR: remove and retrain. A new network is trained and tested on images without their most relevant pixels.

Source: Hooker, Erhan, Kindermans & Kim 2019 (arXiv:1806.10758).
Differs: pixels (all channels) are removed, not single channel values; set `unit: feature` for the original.
"""

from efface.metrics.shared.orders import retrained

roar = retrained(
    "most_first",
    better="lower",
    caption="The pixels that a map ranks highest are erased in training and test images, and a new network is trained "
    "on the rest. A truthful map makes that network less accurate.",
)
