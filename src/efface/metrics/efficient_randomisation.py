"""Efficient parameter randomisation: how much a map's entropy rises when all parameters of the network are random.

Source: Hedström, Weber, Lapuschkin & Höhne 2023 (arXiv:2401.06465), section 4: eMPRT.
Differs: every module has a seed of its own; the maps are as `post` makes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from efface.erase.masking import to_float
from efface.erase.post import apply_post
from efface.metrics.formula import Metric
from efface.metrics.probes import Case, Needs
from efface.metrics.shared.effects import one_an_image
from efface.metrics.shared.layers import Draw, Statistics, chosen, redrawn
from efface.plug.call import Call
from efface.store.arrays import read_rows
from efface.store.results import Score


def efficient_randomisation(*, bins: int = 100, draw: Draw = "reset", statistics: Statistics = "reset") -> Metric:
    """Relative rise of the entropy of a map's histogram from the trained network to a fully randomised one.

    Formula: (H(randomised) - H(trained)) / H(trained). It costs two maps for each image instead of one for each layer.
    The maps are taken after `post`, with their channels.

    bins: bins of the histogram, at least 2, of equal width from a map's smallest to its largest value.
    draw: as in `randomisation`.
    statistics: as in `randomisation`, but reset by default, as in the authors' code. With keep, a network with
        BatchNorms has activations of another scale once its weights are redrawn, and the sign may turn.

    Source: Hedström et al. 2023, section 4 (arXiv:2401.06465), and their code in Quantus (EfficientMPRT).
    Differs: every module has a seed of its own, where the code gives all modules the same; the maps are as `post` makes
        them; a map of one value has no entropy to compare with and is missing.
    """
    if bins < 2:
        raise ValueError(f"efficient_randomisation: bins is {bins}, expected a whole number of at least 2; raise it")
    return Metric(
        probes=lambda point: {"entropy": Forgotten(bins, draw, statistics, point.post)},
        value=_rise,
        direction={"entropy_rise": "higher"},
        sample="images",
        uses=frozenset({"post"}),
        caption="All weights are redrawn at random, and the method runs again. A truthful map loses its structure, so "
        "the entropy of its histogram rises.",
        family="randomisation",
        axis="",
    )


def histogram_entropy(maps: Float[Tensor, "n *units"], *, bins: int = 100) -> Float[Tensor, " n"]:
    """Entropy in nats of the histogram of each map's values, between its smallest and largest; 0 for a constant map."""
    values = maps.flatten(1).double()
    least, most = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    span = torch.where(most > least, most - least, 1)
    places = ((values - least) / span * bins).long().clamp(max=bins - 1)
    counts = torch.zeros(len(values), bins, dtype=torch.float64, device=maps.device)
    shares = counts.scatter_add_(1, places, torch.ones_like(values)) / values.shape[1]
    return torch.special.entr(shares).sum(1)


def _rise(scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    before, after = (scores["entropy"].values[name].astype(np.float64) for name in ("entropy", "randomised"))
    return {"entropy_rise": np.where(before > 0, (after - before) / np.where(before > 0, before, 1), np.nan)}


@dataclass(frozen=True)
class Forgotten:
    """Histogram entropies of the stored maps, and of the maps of a network with all its parameters redrawn."""

    bins: int
    draw: Draw
    statistics: Statistics
    post: tuple[Call, ...]

    needs = Needs(method=True, blocks=True)
    cost = one_an_image

    def identity(self) -> dict[str, Any]:
        what = {"probe": "forgotten", "bins": self.bins, "draw": self.draw, "statistics": self.statistics}
        return what | {"post": [step.identity() for step in self.post]}

    def __call__(self, case: Case) -> Score:
        every = chosen(case.network, None, 1.0, "cascading", self.statistics)
        network = redrawn(case.network, every, draw=self.draw, seed=case.seed, statistics=self.statistics)
        split = case.data["test"]
        entropies: dict[str, list[np.ndarray]] = {"entropy": [], "randomised": []}
        for indices in case.test_rows.split(case.max_batch):
            images = to_float(read_rows(split.images, indices).to(case.device))
            asked = case.explain(network, images, case.target_classes[indices].to(case.device), indices)
            for name, maps in (("entropy", case.maps["test"].take(indices)), ("randomised", asked)):
                entropies[name].append(
                    histogram_entropy(apply_post(maps, self.post), bins=self.bins).float().numpy(force=True)
                )
            case.advance(float(len(indices)))
        return Score({name: np.concatenate(parts) for name, parts in entropies.items()})
