"""Whether a method's maps are fit to be scored at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from efface.call import Call
from efface.fit import Fit
from efface.masking import for_unit, to_float
from efface.probes.case import Case
from efface.results import Score
from efface.rows import take
from efface.stats import degeneracy
from efface.types import Maps

IMAGES, ASKED = 64, 8
"""How many test images are looked at, and of how many the map for another class is asked for."""
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Degeneracy:
    """What is wrong with the maps of the first test images, as they are ranked; precedes every score.

    Values per image: `constant` (its order is the tie rule's), `levels` (distinct values over units), `tied_share`
    (units that share their value), `like_first` (the same as the first image's map but for scale), `blind` (the same
    for the next class; NaN beyond the first images, which alone are asked).
    """

    post: tuple[Call, ...]
    unit: Literal["pixel", "feature"]

    needs_map = True
    needs_network = True
    needs_method = True

    def costs(self, case_rows: Mapping[str, int], fit_settings: Fit | None) -> float:  # noqa: ARG002
        """Forward rows, if a map took one."""
        return float(min(ASKED, case_rows["test"]))

    def identity(self) -> dict[str, Any]:
        return {"probe": "degeneracy", "post": [each.identity() for each in self.post], "unit": self.unit}

    def __call__(self, case: Case) -> Score:
        assert case.explain is not None
        assert case.network is not None
        split = case.data["test"]
        rows = torch.arange(min(IMAGES, len(split)))
        maps = self._ranked(case.maps["test"].take(rows), split.shape[0])
        asked = rows[:ASKED]
        images = to_float(take(split.images, asked).to(case.device))
        with torch.no_grad():
            classes = case.network(images[:1]).shape[1]
        others = (case.explained[asked].to(case.device) + 1) % classes
        other = self._ranked(case.explain(case.network, images, others, asked).cpu(), split.shape[0])
        case.advance(float(len(asked)))
        return Score(degenerate(maps, other))

    def _ranked(self, maps: Maps, channels: int) -> Maps:
        for each in self.post:
            maps = each(maps)
        return for_unit(maps, self.unit, channels)


def degenerate(maps: Maps, other: Float[Tensor, "asked *unit"]) -> dict[str, np.ndarray]:
    """The values of `Degeneracy` for each map. other: the first maps' for another class."""
    alone = [degeneracy([each[None]], tolerance=TOLERANCE) for each in maps]
    first = [degeneracy([maps[:1], each[None]], tolerance=TOLERANCE).spread <= TOLERANCE for each in maps]
    blind = [
        degeneracy([one[None]], [two[None]], tolerance=TOLERANCE).blind_share
        for one, two in zip(maps, other, strict=False)
    ]
    return {
        "constant": np.array([each.constant_share > 0 for each in alone]),
        "levels": np.array([each.level_share for each in alone]),
        "tied_share": np.array([each.tied_share for each in alone]),
        "like_first": np.array([False, *first[1:]]),
        "blind": np.array(blind + [np.nan] * (len(maps) - len(blind))),
    }
