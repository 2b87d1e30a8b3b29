"""What a report is made from, by hand."""

import numpy as np

from efface.report.facts import Facts
from efface.report.stats import Curve


def curve_of(values, method: str = "m", *, pairs=None, **changes) -> Curve:
    """A curve of these values, samples by points; unless told, of the probability under morf over images in order."""
    values = np.array(values, dtype=np.float64)
    given = {
        "metric": "morf",
        "score": "probability",
        "at": (0.0, 0.5, 1.0),
        "sample": "images",
        "direction": "lower",
    }
    pairs = tuple(range(len(values))) if pairs is None else pairs
    return Curve(method=method, values=values, pairs=pairs, **given | changes)


def facts_of(**changes) -> Facts:
    """Facts of a finished run on the CPU that has nothing to warn of."""
    given = {
        "study": "out: runs/x",
        "name": "x",
        "versions": {},
        "device": "CPU",
        "seconds": {"train": 1.0},
        "unfinished": (),
        "data": "patches",
        "network": "net",
        "warnings": (),
    }
    return Facts(**given | changes)
