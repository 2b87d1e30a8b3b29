"""Shapley values: whether the map's sum over a cell follows the exact Shapley value of that cell."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.types import Images, TargetScore
from efface.metrics.formula import Metric
from efface.metrics.probes import Case, Description, Needs
from efface.metrics.probes.description import text
from efface.metrics.probes.tokens import check_emptied, drops_tokens
from efface.metrics.shared.cells import (
    ROUNDING,
    CellSums,
    Gone,
    by_cell,
    cell_labels,
    cell_of,
    check_grid,
    for_each_pixel,
    over_cells,
    scores_without,
)
from efface.metrics.shared.effects import faithfulness, identity_of, pearson, spearman
from efface.plug.call import Call
from efface.store.results import Score
from efface.training.loop import TrainingSettings

MOST_CELLS = 4
"""Most cells across: 65,536 passes of each image. Five would be 33 million."""


def shapley(*, grid: int = 3, score: TargetScore = "probability") -> Metric:
    """Correlation, over the cells of a grid, of the map's sum over a cell with the exact Shapley value of that cell.

    The players are the cells. The value of a coalition is the score of the explained class where all other cells are
    filled with `imputer`. The Shapley value of a cell is its mean contribution over all orders in which the cells can
    join. The values of all cells add up to the score of the whole image less that of the empty image (efficiency).

    spearman: rank correlation of the cells' sums of the map with the Shapley values. Values within 1e-6 of the largest
        score of a coalition count as 0, so that they tie.
    pearson: their linear correlation.

    The map is signed, with its channels summed (`post`). Both values are 1 for a map of each pixel's contribution, on a
    network that adds up contributions (`score: logit`). Both are 0 on average for a random map. NaN for a map whose
    pixels are all equal, and for an image whose Shapley values are all equal. Where the cells differ in size, both
    numbers are divided by the number of pixels of the cell.

    With the fill `drop_tokens`, each cell consists of whole patches of the network, and their tokens are dropped. The
    network must have an output without any patch token.

    grid: cells across and down, 2 to 4. An image costs 2^(grid * grid) forward passes: 16, 512 or 65,536. All methods
        share these passes.
    score: score of the explained class: logit, log_probability, probability or loss (cross entropy).

    Source: Shapley 1953 (A value for n-person games); the game of an image's cells as in Muschalik et al. 2024, shapiq
        (arXiv:2410.01649).
    Differs: exact values of few cells serve as the reference for every map, where shapiq estimates them for an
        explanation.
    """
    check_grid("shapley", "grid", grid, MOST_CELLS)
    return faithfulness(
        lambda point: {
            "values": Coalitions(grid, score, point.imputer),
            "sums": CellSums(grid, point.post, drops_tokens(point.imputer)),
        },
        _correlated,
        {"spearman": "higher", "pearson": "higher"},
        "The exact Shapley value of each cell of a grid is its mean contribution to the score over all orders "
        "of the cells. The sums of a truthful map over the cells follow these values.",
    )


@dataclass(frozen=True)
class Coalitions:
    """Exact Shapley value of each cell, from the scores of all coalitions. All methods share it.

    `rounding` is 1e-6 of the largest score of a coalition.
    """

    grid: int
    score: TargetScore
    imputer: Call

    needs = Needs(maps=False, blocks=True)
    can_drop_tokens = "cells"
    identity = identity_of

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes."""
        return float(2 ** (self.grid**2) * images["test"])

    def describe(self) -> Description:
        return Description(unit=cell_of(self.grid), imputer=text(self.imputer))

    def check(self, network: nn.Module, images: Images) -> None:
        """Raise ValueError if there are more cells than pixels, or the network needs a token that is dropped."""
        tokens = drops_tokens(self.imputer)
        cell_labels(network, images, self.grid, tokens=tokens)
        if tokens:
            try:
                check_emptied(network, images)
            except ValueError as error:
                raise ValueError(
                    f"the empty coalition has no score with drop_tokens ({error}); take another imputer"
                ) from error

    def __call__(self, case: Case) -> Score:
        scores = scores_without(
            case,
            case.network,
            coalitions(self.grid**2),
            grid=self.grid,
            imputer=self.imputer,
            score=self.score,
            name="shapley",
        )
        rounding = ROUNDING * scores.abs().amax(1).numpy()
        return Score(by_cell(shapley_values(scores).numpy()) | {"rounding": rounding})


def coalitions(players: int) -> Gone:
    """Return the players that are absent from each coalition. Player k is in coalition S if bit k of S is set."""
    bits = torch.arange(2**players)[:, None] >> torch.arange(players)
    return bits % 2 == 0


def shapley_values(scores: Float[Tensor, "n coalitions"]) -> Float[Tensor, "n players"]:
    """Return the exact Shapley value of each player, in float64.

    Formula: the sum over the coalitions S with player k of (|S| - 1)! (p - |S|)! / p! * (v(S) - v(S without k)).

    scores: the values of all coalitions, in the order of `coalitions`.
    """
    players = scores.shape[1].bit_length() - 1
    absent = coalitions(players)
    sizes = (~absent).sum(1)
    joined = [0.0] + [1 / (players * math.comb(players - 1, size - 1)) for size in range(1, players + 1)]
    left = [1 / (players * math.comb(players - 1, size)) for size in range(players)] + [0.0]
    weights = torch.where(
        absent,
        -torch.tensor(left, dtype=torch.float64)[sizes][:, None],
        torch.tensor(joined, dtype=torch.float64)[sizes][:, None],
    )
    return scores.double() @ weights.to(scores.device)


def _correlated(scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    values, rounding = over_cells(scores["values"]), scores["values"].values["rounding"]
    given, exact = for_each_pixel(scores["sums"], np.where(np.abs(values) > rounding[:, None], values, 0))
    return {"spearman": spearman(given, exact), "pearson": pearson(given, exact)}
