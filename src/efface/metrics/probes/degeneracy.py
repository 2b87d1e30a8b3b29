"""Whether a method's maps are fit to be scored at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from efface.erase.masking import to_float
from efface.erase.post import apply_post
from efface.erase.ranking import for_unit
from efface.metrics.probes.case import Case
from efface.metrics.probes.contract import Needs
from efface.metrics.shared.degenerate import degeneracy
from efface.plug.call import Call
from efface.store.arrays import read_rows
from efface.store.results import Score
from efface.training.loop import TrainingSettings
from efface.types import Maps

IMAGES, ASKED = 64, 8
"""How many test images are looked at, and of how many of these the map for another class is asked for."""
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Degeneracy:
    """What is wrong with the maps of 64 test images, as they are ranked; precedes every score.

    The images lie evenly over the test split. Values per image: `nonfinite` (it holds a NaN or an infinity), `constant`
    (its order is the tie rule's), `levels` (distinct values over units), `tied_share` (units that share their value),
    `alike` (the same, but for scale, as the map that most images share), `blind` (the same for the next class; NaN but
    for 8 images, which alone are asked, evenly as well).
    """

    post: tuple[Call, ...]
    unit: Literal["pixel", "feature"]

    needs = Needs(method=True)

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward rows, if a map took one."""
        return float(min(ASKED, images["test"]))

    def identity(self) -> dict[str, Any]:
        return {"probe": "degeneracy", "post": [each.identity() for each in self.post], "unit": self.unit}

    def __call__(self, case: Case) -> Score:
        split = case.data["test"]
        rows = _evenly(len(split), IMAGES)
        maps = self._ranked(case.maps["test"].take(rows), split.shape[0])
        places = _evenly(len(rows), ASKED)
        asked = rows[places]
        images = to_float(read_rows(split.images, asked).to(case.device))
        with torch.no_grad():
            classes = case.network(images[:1]).shape[1]
        others = (case.target_classes[asked].to(case.device) + 1) % classes
        other = self._ranked(case.explain(case.network, images, others, asked).cpu(), split.shape[0])
        case.advance(float(len(asked)))
        return Score(degenerate(maps, other, places))

    def _ranked(self, maps: Maps, channels: int) -> Maps:
        return for_unit(apply_post(maps, self.post), self.unit, channels)


def degenerate(maps: Maps, other: Float[Tensor, "asked *unit"], places: Int[Tensor, " asked"]) -> dict[str, np.ndarray]:
    """The values of `Degeneracy` for each map. other: the maps at these places for another class."""
    found = degeneracy(maps, tolerance=TOLERANCE)
    blind = torch.full((len(maps),), torch.nan, dtype=torch.float64)
    blind[places] = degeneracy(maps[places], other, tolerance=TOLERANCE).blind
    return {
        "nonfinite": found.nonfinite.numpy(),
        "constant": found.constant.numpy(),
        "levels": found.levels.numpy(),
        "tied_share": found.tied.numpy(),
        "alike": found.alike.numpy(),
        "blind": blind.numpy(),
    }


def _evenly(count: int, most: int) -> Int[Tensor, " places"]:
    """At most so many of the places from 0 to count - 1, evenly spaced, both ends among them."""
    return torch.linspace(0, count - 1, min(most, count)).round().long()
