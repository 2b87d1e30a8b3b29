"""Relevance mass: the share of a map's positive relevance that lies on the true object.

The maps are as `post` makes them; what is negative then counts for nothing. It needs the masks of the true objects.
Chance is the object's share of the image. Missing where a map has no positive value.

Source: Arras, Osman & Samek 2022, section 3.2 (arXiv:2003.07258): relevance mass accuracy.
Differs: the channels are pooled by the study's `post`, not by one of the paper's five ways.
"""

from efface.metrics.formula import Metric
from efface.metrics.shared.located import Located

relevance_mass = Metric(
    probes=lambda point: {"located": Located("relevance_mass", point.post)},
    value=lambda scores: {"mass": scores["located"].values["relevance_mass"]},
    direction={"mass": "higher"},
    sample="images",
    uses=frozenset({"post"}),
    caption="The share of a map's positive relevance that lies on the true object. A truthful map of a network that "
    "looks at the object has it there.",
    family="localisation",
    axis="",
    points_for=lambda _shape: (0.0,),
)
