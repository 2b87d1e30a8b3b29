"""Precision: share on the true object of the k pixels with the largest absolute values, k the object's pixels.

It is `relevance_rank` of the absolute map: a pixel that speaks against the class counts as much as one for it. The maps
are taken after `post`. The metric needs the masks of the true objects. Ties for the last places count by their share on
the object. Chance is the object's share of the image.

Source: Clark, Wilming & Haufe 2023, section 3 (arXiv:2306.12816).
Differs: pixels of value 0 share the places that are left, where the code gives them none.
"""

from efface.metrics.shared.located import located

precision = located(
    "precision",
    "precision",
    "The share on the true object of the k pixels with the largest absolute values, where k is the object's "
    "number of pixels. If the network uses the object, a truthful map has its largest values there.",
)
