"""Complexity: over how many pixels a map spreads its weight, by the entropy.

The entropy, in nats, of the absolute values divided by their sum: 0 where one pixel holds everything, log(pixels) where
all are equal, so images of different size do not compare; the map's scale changes nothing. NaN for a map of zeros.
After `post`, pixel by pixel (channel by channel where `unit` is feature). It describes and does not judge: a true map
is as spread as the network's evidence is. Costs no pass, and nothing once `sparseness` ran.

Source: Bhatt, Weller & Moura 2020 (arXiv:2005.00631).
"""

from efface.metrics.shared.concentration import described

complexity = described(
    "entropy",
    caption="The entropy of the sizes of a map's values: 0 for one pixel with all the weight, the logarithm of the "
    "pixels for an even map. It describes a map; a truthful one need not be simple.",
)
