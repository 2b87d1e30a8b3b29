"""Relevance rank: share on the true object of the k most relevant pixels, where k is the object's number of pixels.

The maps are taken after `post`. The metric needs the masks of the true objects. Only the order of the values counts.
Ties for the last places count by their share on the object. Chance is the object's share of the image.

Source: Arras, Osman & Samek 2022, section 3.2 (arXiv:2003.07258): relevance rank accuracy.
Differs: the channels are pooled by the study's `post`; the paper breaks ties in an order of its own.
"""

from efface.metrics.shared.located import located

relevance_rank = located(
    "relevance_rank",
    "overlap",
    "The share on the true object of the k pixels that a map ranks highest, where k is the object's number of "
    "pixels. If the network uses the object, a truthful map ranks its pixels first.",
)
