"""Sparseness: on how few pixels a map puts its weight, by the Gini index.

The Gini index of the absolute values: 0 where all are equal, near 1 where one holds everything; the map's scale changes
nothing. NaN for a map of zeros. After `post`, pixel by pixel (channel by channel where `unit` is feature). It describes
and does not judge: a true map is as sparse as the network's evidence is, and a sparse map may be false. Costs no pass.

Source: Chalasani, Chen, Chowdhury, Jha & Wu 2020 (arXiv:1810.06583).
Differs: no small constant is added to the values.
"""

from efface.metrics.shared.concentration import described

sparseness = described(
    "gini",
    caption="The Gini index of the sizes of a map's values: 0 for an even map, near 1 for one that puts all its weight "
    "on one pixel. It describes a map; a truthful one need not be sparse.",
)
