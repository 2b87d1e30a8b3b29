"""Mask leak, a control: what a network learns of the class from the outline of what is erased, and nothing else.

A new network is trained and tested on images that are white where the image would be left and black where its most
relevant pixels would be gone. Its chance is the same network on all-white images, which can do no better than name the
most frequent class. `leak` = its accuracy less that chance. What it reads there, a network that is retrained on erased
images (ROAR) can read too, however well the pixels themselves are hidden.

Settings of its own: none. `fractions` and `repeats`: each costs a training; chance one a repeat, for all methods
together. It judges no map: a true map of objects whose shape tells the class must leak.

Source: Rong et al. 2022, section 3 (arXiv:2202.00449).
Differs: the study's own network and `fit`; masks as they are, not moved to the centre; chance is measured.
"""

from collections.abc import Mapping
from dataclasses import replace

from efface.metrics.formula import Metric, Point
from efface.metrics.probes import Retrain
from efface.plug.call import Call
from efface.store.results import Score

_UNUSED = Call(call="efface.impute.constant")  # black or white is all there is


def _probes(point: Point) -> dict[str, Retrain]:
    blank = Retrain(replace(point.erasure("most_first", 0.0), imputer=_UNUSED, shown="mask"), point.repeat)
    if point.x in (0, 1):  # an even image, white or black
        return {"mask": blank, "blank": blank}
    shown = replace(point.erasure("most_first", point.x), imputer=_UNUSED, shown="mask")
    return {"mask": Retrain(shown, point.repeat), "blank": blank}


def _values(scores: Mapping[str, Score]) -> dict[str, float]:
    accuracy = scores["mask"].mean("accuracy")
    return {"leak": accuracy - scores["blank"].mean("accuracy"), "accuracy": accuracy}


mask_leak = Metric(
    probes=_probes,
    value=_values,
    direction={"leak": "none", "accuracy": "none"},
    sample="repeats",
    uses=frozenset({"unit", "groups", "post", "fractions"}),
    family="control",
    caption="A network is trained anew on the mere outline of what would be erased: white where the image is left, "
    "black where a map ranks highest. What it gets right beyond chance, the outline betrays; a retrained score of the "
    "same map is worth that much less.",
)
