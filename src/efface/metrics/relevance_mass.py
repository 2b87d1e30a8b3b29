"""Relevance mass: the share of a map's positive relevance on the true object.

The maps are taken after `post`. Negative values count as 0. The metric needs the masks of the true objects. Chance is
the object's share of the image. A value is missing if a map has no positive value.

Source: Arras, Osman & Samek 2022, section 3.2 (arXiv:2003.07258): relevance mass accuracy.
Differs: the channels are pooled by the study's `post`, not by one of the paper's five ways.
"""

from efface.metrics.formula import Metric, values_of
from efface.metrics.shared.located import Located

relevance_mass = Metric(
    probes=lambda point: {"located": Located("relevance_mass", point.post)},
    value=values_of("located", mass="relevance_mass"),
    direction={"mass": "higher"},
    ranges={"mass": (0.0, 1.0)},
    sample="images",
    uses=frozenset({"post"}),
    caption="The share of a map's positive relevance on the true object. If the network uses the object, a truthful "
    "map has its relevance there.",
    family="localisation",
    axis="",
)
