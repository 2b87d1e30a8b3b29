"""Deletion: probability of the explained class while the most relevant pixels are removed, down to a flat image.

Values of each image and point: the probability, and whether the image is still classified right. The area under the
curve from nothing to everything removed is RISE's number.

Settings of its own: none.
`fractions`: 0 to 1 in 20 steps. Each costs a forward pass of the test images. The trapezoid rule straightens a fall
between two points.
`imputer`: the channel means.

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
    "map the probability of the explained class falls early, and the area under it is small.",
)
