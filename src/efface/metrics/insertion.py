"""Insertion: the explained class's probability while the most relevant pixels come back into a blurred image.

Putting the most relevant k pixels into a blurred image is blurring the least relevant N - k of a whole one. So a point
is LeRF with a blurred fill, and the curve is read from its other end: at a fraction f removed, 1 - f is inserted. The
area from 0 to 1 is the same from both ends.

Settings of its own: none. `fractions` (0 to 1 in 20 steps): each costs a forward pass of the test images. `imputer`
(a Gaussian of 5 pixels cut off at 5 pixels, so nearly a box of 11).

Source: Petsiuk, Das & Saenko 2018 (arXiv:1806.07421), the insertion metric and its released code.
Differs: 20 steps instead of 224; the blur repeats the border outwards, where the code darkens it.
"""

from efface.metrics.shared.orders import area

insertion = area(
    "least_first",
    better="higher",
    imputer={"call": "efface.impute.blur", "kwargs": {"sigma": 5.0, "kernel": 11}},
    caption="The pixels that a map ranks highest are put back, step by step, into the blurred image: read the "
    "curve from right (all blurred) to left (all inserted). With a truthful map the probability of the explained class "
    "rises early and the area under it is large.",
)
