"""Deletion: the explained class's probability while the most relevant pixels go, down to a flat image.

Of each image and point: the probability, and whether the image is still classified right. The area under the curve
from nothing to everything removed is RISE's number.

Settings of its own: none. `fractions` (0 to 1 in 20 steps): each costs a forward pass of the test images; an early
fall between two points is straightened by the trapezoid rule. `imputer` (the channel means).

Source: Petsiuk, Das & Saenko 2018 (arXiv:1806.07421), the deletion metric and its released code.
Differs: 20 steps instead of 224; channel means of this data set, where the code's zero after normalisation is that of
ImageNet.
"""

from efface.metrics.shared.orders import area

deletion = area(
    "most_first",
    better="lower",
    imputer="efface.impute.channel_mean",
    caption="The pixels that a map ranks highest are deleted, step by step, until the image is flat. With a truthful "
    "map the probability of the explained class falls early and the area under it is small.",
)
