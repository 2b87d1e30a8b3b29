"""Mask leak, a control: the accuracy of a network that sees only the outline of what is erased.

A new network is trained and tested on images that are white where the image would be kept and black where its most
relevant pixels would be removed. Chance is the accuracy of the same network on all-white images, where it can only
learn the most frequent class. `leak` is the accuracy minus chance. A network that is retrained on erased images (ROAR)
can use the same outline, even if the fill hides the pixels well.

Settings of its own: none.
`fractions` and `repeats`: each costs a training. Chance costs one training for each repeat, shared by all methods.
The metric does not judge maps: a true map must leak if the shape of the objects reveals the class.

Source: Rong et al. 2022, section 3 (arXiv:2202.00449).
Differs: the study's own network and `fit`; masks as they are, not moved to the centre; chance is measured.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from efface.metrics.formula import Metric, Point
from efface.metrics.probes import Retrain
from efface.metrics.shared.orders import SIGNED, UNIT
from efface.plug.call import Call
from efface.store.results import Score

_UNUSED = Call(call="efface.impute.constant")  # the images are only black and white


def _probes(point: Point) -> dict[str, Retrain]:
    blank = Retrain(replace(point.erasure("most_first", 0.0), imputer=_UNUSED, shown="mask"), point.repeat)
    if point.x in (0, 1):  # the image is all white or all black
        return {"mask": blank, "blank": blank}
    shown = replace(point.erasure("most_first", point.x), imputer=_UNUSED, shown="mask")
    return {"mask": Retrain(shown, point.repeat), "blank": blank}


def _values(scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    mask, blank = (scores[name].values["accuracy"].astype(np.float64) for name in ("mask", "blank"))
    return {"leak": mask - blank, "accuracy": mask}


mask_leak = Metric(
    probes=_probes,
    value=_values,
    direction={"leak": "none", "accuracy": "none"},
    ranges={"leak": SIGNED, "accuracy": UNIT},
    sample="repeats",
    uses=frozenset({"unit", "groups", "post", "fractions"}),
    family="control",
    caption="A new network is trained on nothing but the outline of what would be erased: white for kept pixels, black "
    "for those that a map ranks highest. Its accuracy above chance comes from the outline alone. Trust a retrained "
    "score of the same map that much less.",
)
