"""Relevance mass: the share of a map's positive relevance on the true object.

The maps are taken after `post`. Negative values count as 0. The metric needs the masks of the true objects. Chance is
the object's share of the image. A value is missing if a map has no positive value.

Source: Arras, Osman & Samek 2022, section 3.2 (arXiv:2003.07258): relevance mass accuracy.
Differs: the channels are pooled by the study's `post`, not by one of the paper's five ways.
"""

from efface.metrics.shared.located import located

relevance_mass = located(
    "relevance_mass",
    "mass",
    "The share of a map's positive relevance on the true object. If the network uses the object, a truthful "
    "map has its relevance there.",
)
