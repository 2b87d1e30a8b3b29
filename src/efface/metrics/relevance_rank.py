"""Relevance rank: how many of a map's highest values, as many as the true object has pixels, lie on it.

The maps are as `post` makes them; it needs the masks of the true objects. Only the order counts; ties for the last
places count by the share of them on the object. Chance is the object's share of the image.

Source: Arras, Osman & Samek 2022, section 3.2 (arXiv:2003.07258): relevance rank accuracy.
Differs: the channels are pooled by the study's `post`; the paper breaks ties in an order of its own.
"""

from efface.metrics.formula import Metric
from efface.metrics.shared.located import Located

relevance_rank = Metric(
    probes=lambda point: {"located": Located("relevance_rank", point.post)},
    value=lambda scores: {"overlap": scores["located"].values["relevance_rank"]},
    direction={"overlap": "higher"},
    sample="images",
    uses=frozenset({"post"}),
    caption="Of as many pixels as the true object has, those that a map ranks highest: the share that lies on it. A "
    "truthful map of a network that looks at the object ranks it first.",
    family="localisation",
    axis="",
    points_for=lambda _shape: (0.0,),
)
