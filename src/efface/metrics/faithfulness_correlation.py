"""Faithfulness correlation and MuFidelity: the map's sums over random sets, and the effect of erasing these sets."""

from typing import Literal

import numpy as np

from efface.base.types import TargetScore
from efface.metrics.formula import Metric, Point, values_of
from efface.metrics.sensitivity_n import at_least_three
from efface.metrics.shared.effects import faithfulness
from efface.metrics.shared.subsets import Sets, Subsets

Undefined = Literal["missing", "zero"]


def faithfulness_correlation(
    *,
    fraction: float = 0.2,
    samples: int = 100,
    grid: int = 0,
    score: TargetScore = "logit",
    sets: Sets = "exact",
    undefined: Undefined = "missing",
) -> Metric:
    """Correlation, over random sets of one size, of the map's sum over a set with the fall of the score without it.

    `pearson` is that of Bhatt et al. `spearman` is that of MuFidelity, where only the order counts. The metric is
    sensitivity-n at one fraction with more draws.

    The published settings of MuFidelity are `grid: 9`, `samples: 200`, `sets: independent`, `undefined: zero` and
    `imputer: {call: constant, kwargs: {value: 0.0}}`, with this `fraction`.

    The map is signed and its channels are summed (`post`). The fill is the data set's mean colour (`imputer`). Both can
    be set.

    fraction: part of the units in each set, above 0 and below 1.
    samples: sets of each image, at least 3. Each costs one forward pass.
    grid: cells in height and in width, erased as a whole. 0 erases single units (`unit`, which is refused with a grid).
    score: score of the explained class: logit, log_probability, probability or loss (cross entropy).
    sets: exact: every set has that part of the units. independent: each unit is in a set with that probability.
    undefined: value of an image whose map or score does not vary over the sets. missing: none, so it does not count.
        zero: 0.

    Source: Bhatt, Weller & Moura 2020 (arXiv:2005.00631); the grid and the ranks are those of MuFidelity in the
        xplique library.
    Differs: sets are a part of the units, not a number of features, so one setting serves images of any size; each
        image has sets of its own, where MuFidelity draws them for a batch.
    """
    at_least_three("faithfulness_correlation", samples)
    if not 0 < fraction < 1:
        raise ValueError(
            f"faithfulness_correlation: fraction is {fraction}; expected above 0 and below 1: the part of each set"
        )
    if grid < 0 or grid == 1:
        raise ValueError(f"faithfulness_correlation: grid is {grid}; expected at least 2, or 0 for single units")

    def probes(point: Point) -> dict[str, Subsets]:
        unit = "pixel" if grid else point.unit  # a cell is its unit
        return {"subsets": Subsets(fraction, samples, grid, score, point.imputer, point.post, unit, sets)}

    shown = values_of("subsets", "pearson", "spearman")
    return faithfulness(
        probes,
        shown if undefined == "missing" else lambda scores: {n: np.nan_to_num(v) for n, v in shown(scores).items()},
        {"pearson": "higher", "spearman": "higher"},
        "Random sets of pixels are erased. The larger the sum of a truthful map over a set, the further the "
        "score falls without it. The correlation over the sets is then near 1.",
        uses=frozenset({"imputer", "post"}) if grid else frozenset({"imputer", "unit", "groups", "post"}),
    )
