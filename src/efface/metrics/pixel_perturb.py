"""Pixel perturbation: accuracy without the least relevant pixels, from 1 % to all of them on a logarithmic scale.

Values of each image and point: whether it is classified right without its least relevant pixels, and without its most
relevant ones. Exactly floor(fraction * pixels) pixels are removed each time.

Settings of its own: none.
`fractions`: 25 values from 0.01 to 1, evenly spaced in their logarithm, and 0. Each costs two forward passes of the
test images.
`imputer`: 0.5 in all channels, as in the code. The paper names the image's mean, which is efface.impute.image_mean.

Source: Srinivas & Fleuret 2021 (Rethinking the role of gradient-based attribution methods, arXiv:2006.09128).
Differs: removes k pixels, where the code removes k - 1, so that all are gone at 1; ties by a shuffle. The network sees
grey as 128/255, for erased images have 8 bits. Its score of a pixel, the standard deviation over channels, is
`post: [channel_std]`.
"""

import numpy as np

from efface.metrics.formula import EVERY, Metric
from efface.metrics.shared.orders import UNIT, value_of, ways

pixel_perturb = Metric(
    probes=lambda point: ways(point, "least_first", "most_first"),
    value=lambda scores: {
        "accuracy": value_of(scores, "least_first", "accuracy"),
        "accuracy_most_first": value_of(scores, "most_first", "accuracy"),
    },
    direction={"accuracy": "higher", "accuracy_most_first": "lower"},
    ranges={"accuracy": UNIT, "accuracy_most_first": UNIT},
    sample="images",
    uses=EVERY,
    defaults={
        "imputer": {"call": "efface.impute.constant", "kwargs": {"value": 0.5}},
        "fractions": tuple(np.logspace(-2, 0, 25).tolist()),
    },
    caption="The pixels that a map ranks lowest turn grey, from one in a hundred to all. With a truthful map, images "
    "are still classified right when most of their pixels are gone. In the reverse order, most relevant first, they "
    "are soon classified wrong.",
)
