"""Complexity: the spread of a map's absolute values over its pixels, measured by the entropy.

Formula: - sum of p_i log p_i in nats, where p_i = |v_i| / sum of |v|.
It is 0 if one pixel holds everything and log(pixels) if all are equal, so images of different size are not comparable.
The scale of the map changes nothing. NaN for a map of zeros. It is taken after `post`, pixel by pixel, or channel by
channel if `unit` is feature. It describes and does not judge: a true map is as spread as the network's evidence. It
costs no forward pass, and nothing once `sparseness` has run.

Source: Bhatt, Weller & Moura 2020 (arXiv:2005.00631).
"""

from efface.metrics.shared.concentration import described

complexity = described(
    "entropy",
    caption="The entropy of a map's absolute values: 0 for one pixel with all the weight, the logarithm of the number "
    "of pixels for an even map. It describes a map; a truthful map need not be simple.",
)
