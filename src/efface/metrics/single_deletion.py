"""Single deletion: whether the map's sum over a cell follows the fall of the score without that cell."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from efface.base.types import Images, TargetScore
from efface.metrics.formula import Metric
from efface.metrics.probes import Case, Description, Needs
from efface.metrics.probes.description import text
from efface.metrics.probes.tokens import drops_tokens
from efface.metrics.shared.cells import (
    CellSums,
    by_cell,
    cell_labels,
    cell_of,
    check_grid,
    falls,
    for_each_pixel,
    over_cells,
    scores_without,
    whole_and_singles,
)
from efface.metrics.shared.effects import faithfulness, identity_of, spearman
from efface.plug.call import Call
from efface.store.results import Score
from efface.training.loop import TrainingSettings

MOST_CELLS = 32
"""Most cells across; a larger grid costs over a thousand passes."""


def single_deletion(*, cells: int = 4, score: TargetScore = "logit") -> Metric:
    """Rank correlation, over the cells of a grid, of the map's sum over a cell with the fall of the score without it.

    Spearman's correlation for each image. The map is signed, with its channels summed (`post`). The fill is `imputer`,
    by default the data set's mean colour, which is 0 after normalisation. The correlation is 1 for a map of each
    pixel's contribution, on a network that adds up contributions. It is 0 on average for a random map. A fall within
    1e-6 of the score's size counts as 0, so that such falls tie. Where the cells differ in size, sum and fall are
    divided by the number of pixels of the cell.

    NaN for a map whose pixels are all equal, and for an image whose score falls equally without each cell. The page
    counts these images.

    cells: cells across and down, 2 to 32. An image costs one forward pass for each cell, and one more. All methods
        share these passes.
    score: score of the explained class: logit, log_probability, probability or loss (cross entropy).

    Source: Hesse, Schaub-Meyer & Roth 2024 (arXiv:2407.11910), without their fine-tuning, which is `idsds`.
    Differs: an image without a value is counted, where the code leaves it out; the fill is the mean of this data set,
        where the code's zero after normalisation is that of ImageNet.
    """
    check_grid("single_deletion", "cells", cells, MOST_CELLS)
    return faithfulness(
        lambda point: {
            "falls": Deletions(cells, score, point.imputer),
            "sums": CellSums(cells, point.post, drops_tokens(point.imputer)),
        },
        correlated,
        {"correlation": "higher"},
        "Each cell of a grid is erased alone. The larger the sum of a truthful map over a cell, the further "
        "the score falls without it. The rank correlation over the cells is then near 1.",
    )


@dataclass(frozen=True)
class Deletions:
    """Fall of the score of the given network without each single cell. All methods share it."""

    cells: int
    score: TargetScore
    imputer: Call

    needs = Needs(maps=False, blocks=True)
    can_drop_tokens = "cells"
    identity = identity_of

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes."""
        return float((self.cells**2 + 1) * images["test"])

    def describe(self) -> Description:
        return Description(unit=cell_of(self.cells), imputer=text(self.imputer))

    def check(self, network: nn.Module, images: Images) -> None:
        """Raise ValueError if the grid has more cells across than the images have pixels, or patches."""
        cell_labels(network, images, self.cells, tokens=drops_tokens(self.imputer), setting="cells")

    def __call__(self, case: Case) -> Score:
        return Score(by_cell(deletion_falls(case, case.network, self.cells, self.score, self.imputer)))


def deletion_falls(
    case: Case, network: nn.Module, grid: int, score: TargetScore, imputer: Call
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the fall of a network's score without each single cell, for each test image."""
    gone = whole_and_singles(grid)
    return falls(scores_without(case, network, gone, grid=grid, imputer=imputer, score=score, name="single deletion"))


def correlated(scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    """Return the rank correlation of the probes `sums` and `falls`."""
    return {"correlation": spearman(*for_each_pixel(scores["sums"], over_cells(scores["falls"])))}
