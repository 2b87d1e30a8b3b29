"""Sparseness: the concentration of a map's absolute values on few pixels, measured by the Gini index.

It is 0 if all values are equal and near 1 if one holds everything. The scale of the map changes nothing. NaN for a map
of zeros. It is taken after `post`, pixel by pixel, or channel by channel if `unit` is feature. It describes and does
not judge: a true map is as sparse as the network's evidence, and a sparse map may be false. It costs no forward pass.

Source: Chalasani, Chen, Chowdhury, Wu & Jha 2020 (arXiv:1810.06583).
Differs: no small constant is added to the values.
"""

from efface.metrics.shared.concentration import described

sparseness = described(
    "gini",
    caption="The Gini index of a map's absolute values: 0 for an even map, near 1 for a map with all its weight on one "
    "pixel. It describes a map; a truthful map need not be sparse.",
)
