"""Check of a method's maps: whether they are fit to be scored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from efface.base.types import Maps
from efface.erase.contract import labels_of
from efface.erase.masking import to_float
from efface.erase.post import apply_post
from efface.erase.ranking import for_unit
from efface.erase.units import group_means
from efface.metrics.probes.case import Case
from efface.metrics.probes.probe import Needs
from efface.metrics.shared.degenerate import constant, degeneracy
from efface.plug.call import Call
from efface.store.arrays import read_rows
from efface.store.results import Score
from efface.training.loop import TrainingSettings

IMAGES, ASKED = 64, 8
"""Number of test images that are checked, and number of these for which the map of another class is computed."""
TOLERANCE = 1e-5
_BLOCK = 256
"""Number of maps that are read together."""


@dataclass(frozen=True)
class Degeneracy:
    """Faults of the maps of 64 test images, in the form in which they are ranked. The page shows them first.

    The images are evenly spaced over the test split. Values for each image:

    nonfinite: the map holds a NaN or an infinity.
    constant: the map has one value, so that the tie rule decides the order.
    constant_of_all: the same for every test image.
    levels: number of distinct values divided by the number of units.
    tied_share: share of units with the value of another unit.
    alike: the map equals, up to scale, the map that most images share.
    blind: the map equals that of the next class. NaN except for 8 evenly spaced images, the only ones tested.

    unit: what is ranked; of groups of pixels, such as patches, their means are looked at. If images have different
        numbers of groups, as of superpixels, the pixels are looked at.
    asks: False for maps of a file, which no method can be asked about: `blind` is NaN.
    """

    post: tuple[Call, ...]
    unit: Literal["pixel", "feature"] | Call
    asks: bool = True

    @property
    def needs(self) -> Needs:
        return Needs(method=self.asks)

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes, if a map costs one."""
        return float(min(ASKED, images["test"])) if self.asks else 0.0

    def identity(self) -> dict[str, Any]:
        # `all`: earlier results did not look at the maps of the other images
        identity: dict[str, Any] = {"probe": "degeneracy", "post": [step.identity() for step in self.post]}
        identity |= {"unit": self.unit.identity() if isinstance(self.unit, Call) else self.unit, "all": True}
        return identity if self.asks else identity | {"asks": False}

    def __call__(self, case: Case) -> Score:
        split = case.data["test"]
        indices = _evenly(len(split), IMAGES)
        maps = self._ranked(case, case.maps["test"].take(indices), indices)
        of_all = {"constant_of_all": self._constant(case)}
        if not self.asks:
            return Score(degenerate(maps, None, torch.arange(0)) | of_all)
        places = _evenly(len(indices), ASKED)
        asked = indices[places]
        images = to_float(read_rows(split.images, asked).to(case.device))
        with torch.no_grad():
            classes = case.network(images[:1]).shape[1]
        others = (case.target_classes[asked].to(case.device) + 1) % classes
        other = self._ranked(case, case.explain(case.network, images, others, asked).cpu(), asked)
        case.advance(float(len(asked)))
        return Score(degenerate(maps, other, places) | of_all)

    def _constant(self, case: Case) -> np.ndarray:
        """Return whether the map of each test image has one value."""
        split = case.data["test"]
        parts = (
            constant(self._ranked(case, case.maps["test"].take(rows), rows), tolerance=TOLERANCE)
            for rows in torch.arange(len(split)).split(_BLOCK)
        )
        return torch.cat(list(parts)).numpy()

    def _ranked(self, case: Case, maps: Maps, rows: Int[Tensor, " n"]) -> Float[Tensor, "n *unit"]:
        """Return maps of these test rows as they are ranked."""
        channels = case.data["test"].shape[0]
        maps = apply_post(maps, self.post)
        if not isinstance(self.unit, Call):
            return for_unit(maps, self.unit, channels)
        flat = for_unit(maps, "pixel", channels)
        means = group_means(
            flat, labels_of(self.unit, to_float(read_rows(case.data["test"].images, rows))).to(flat.device)
        )
        return flat if (means == -torch.inf).any() else means[:, None]  # a line of units


def degenerate(
    maps: Maps, other: Float[Tensor, "asked *unit"] | None, places: Int[Tensor, " asked"]
) -> dict[str, np.ndarray]:
    """Return the values of `Degeneracy` for each map.

    other: the maps at these places for another class; None: not known.
    """
    defects = degeneracy(maps, tolerance=TOLERANCE)
    blind = torch.full((len(maps),), torch.nan, dtype=torch.float64)
    if other is not None:
        blind[places] = degeneracy(maps[places], other, tolerance=TOLERANCE).blind
    return {
        "nonfinite": defects.nonfinite.numpy(),
        "constant": defects.constant.numpy(),
        "levels": defects.levels.numpy(),
        "tied_share": defects.tied.numpy(),
        "alike": defects.alike.numpy(),
        "blind": blind.numpy(),
    }


def _evenly(count: int, most: int) -> Int[Tensor, " places"]:
    """Return at most `most` evenly spaced places from 0 to count - 1, both ends included."""
    return torch.linspace(0, count - 1, min(most, count)).round().long()
