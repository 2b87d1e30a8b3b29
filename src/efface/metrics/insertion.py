"""Insertion: probability of the explained class while the most relevant pixels return to a blurred image.

Inserting the most relevant k pixels into a blurred image equals blurring the least relevant N - k pixels of a whole
image. A point is therefore LeRF with a blurred fill, and the curve is read from its right end: at a fraction f removed,
1 - f is inserted. The area from 0 to 1 is the same in both directions.

Settings of its own: none.
`fractions`: 0 to 1 in 20 steps. Each costs a forward pass of the test images.
`imputer`: a Gaussian of 5 pixels, cut off at 5 pixels. `rise_blur` has the kernel and the border of the code.

Source: Petsiuk, Das & Saenko 2018 (arXiv:1806.07421), the insertion metric and its released code.
Differs: 20 steps instead of 224; the blur is a cut-off Gaussian that repeats the border outwards. The
code's own is `imputer: rise_blur`.
"""

from efface.metrics.shared.orders import area

insertion = area(
    "least_first",
    better="higher",
    imputer={"call": "efface.impute.blur", "kwargs": {"sigma": 5.0, "kernel": 11}},
    caption="The pixels that a map ranks highest return, step by step, to the blurred image. Read the curve from "
    "right (all blurred) to left (all inserted). With a truthful map the probability of the explained class rises "
    "early, and the area under it is large.",
)
