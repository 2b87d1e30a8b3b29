"""Magnitude-aligned scoring: insertion or deletion, corrected by what the sizes of the map's values promise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from efface.base.types import Order, Unit
from efface.erase.ranking import removed
from efface.metrics.formula import Better, Metric, Point
from efface.metrics.probes import Case, Description, Needs
from efface.metrics.probes.description import COUNT, SHUFFLED, text
from efface.metrics.shared.effects import identity_of, image_blocks, one_an_image
from efface.metrics.shared.groups import ranked
from efface.metrics.shared.orders import UNIT
from efface.plug.call import Call
from efface.store.results import Score

Way = Literal["insertion", "deletion"]
Curves = Float[np.ndarray, "n points"]


class _Sort(NamedTuple):
    """What a way erases first, the direction of its score, and its fill."""

    order: Order
    better: Better
    imputer: Mapping[str, Any]


_WAYS: Mapping[Way, _Sort] = {
    "insertion": _Sort("least_first", "higher", {"call": "efface.impute.blur", "kwargs": {"sigma": 5.0, "kernel": 11}}),
    "deletion": _Sort("most_first", "lower", {"call": "efface.impute.channel_mean"}),
}
_VALUES = ("score", "response", "penalty")


def magnitude_aligned(*, way: Way = "insertion", steps: int = 20) -> Metric:
    """Area under an insertion or deletion curve, corrected by its distance from the cumulated share of the map.

    At k = 0, 1, ... `steps`, a part k / steps of the units, most relevant first, is deleted, or is inserted into an
    image of fill. Each image has four curves:

    response: the probability p of the explained class as r = (p - e) / (w - e), cut off to [0, 1], where e belongs to
        the empty image and w to the whole one. It is made monotone: by its running maximum for insertion, by its
        running minimum for deletion.
    density: the share of the map's positive values that lies in the units that the network sees.
    penalty: |response - density|.
    corrected: response - penalty for insertion, response + penalty for deletion, cut off to [0, 1]. It is then scaled
        by its own smallest and largest value to [0, 1].

    The values are the areas under three of them: `score` of the corrected curve, `response` and `penalty`. If the
    values of a map follow the effects of its pixels exactly, the penalty is 0 and the score is the response.

    NaN where p does not fall from the whole image to the empty one, for a map without a positive value, and where the
    corrected curve is flat.

    way: insertion or deletion. It also sets the default of `imputer`, which is that of the metric `insertion` or
        `deletion`.
    steps: steps of the curve, at least 2. An image costs `steps` + 1 forward passes. All methods share those of the
        whole and of the empty image. With 20 steps, the passes are those of `insertion` or `deletion`.

    Source: Walker, Simon, Chen & Ewetz 2024, IJCAI (Attribution quality metrics with magnitude alignment), and its
        released code.
    Differs: the fills are those of `insertion` and `deletion`; an image whose curve is flat has no value.
    """
    if steps < 2:
        raise ValueError(f"magnitude_aligned: steps is {steps}; expected at least 2, so that a curve bends: raise it")
    sort, deleting = _WAYS[way], way == "deletion"

    def probes(point: Point) -> dict[str, Any]:
        seen = {_at(k): point.perturb(sort.order, k / steps) for k in range(steps + 1)}
        return {**seen, "kept": Kept(sort.order, steps, point.post, point.unit)}

    def value(scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
        heights = np.stack([scores[_at(k)].values["probability"] for k in range(steps + 1)], 1).astype(np.float64)
        density = np.stack([scores["kept"].values[_at(k)] for k in range(steps + 1)], 1)
        return dict(zip(_VALUES, aligned(heights, density, deleting=deleting), strict=True))

    return Metric(
        probes=probes,
        value=value,
        direction={"score": sort.better, "response": sort.better, "penalty": "lower"},
        ranges=dict.fromkeys(_VALUES, UNIT),
        sample="images",
        uses=frozenset({"imputer", "unit", "groups", "post"}),
        caption=f"The curve of {way} is corrected by its distance from the cumulated share of the map. With a truthful "
        "map, the most relevant pixels change the probability first, and by as much as their values promise.",
        defaults={"imputer": sort.imputer, "post": ["efface.erase.post.absolute", "efface.erase.post.channel_sum"]},
        axis="",
    )


def _at(k: int) -> str:
    """Return the name of step k."""
    return f"step_{k}"


@dataclass(frozen=True)
class Kept:
    """Share of a map's positive values that is left after each step of erasing. It needs no forward pass."""

    order: Order
    steps: int
    post: tuple[Call, ...]
    unit: Unit | Call

    needs = Needs(blocks=True)
    identity = identity_of
    cost = one_an_image

    def describe(self) -> Description:
        return Description(text(self.unit), ties=SHUFFLED, count=COUNT)

    def __call__(self, case: Case) -> Score:
        parts, grouped = [], isinstance(self.unit, Call)
        for indices, images, _ in image_blocks(case, 1):
            maps, ranks = ranked(case, indices, images, self.post, self.unit)
            positive = maps.double().clamp(min=0)
            left = [
                torch.where(removed(ranks, k / self.steps, self.order, grouped=grouped), 0, positive).flatten(1).sum(1)
                for k in range(self.steps + 1)
            ]
            parts.append((torch.stack(left) / left[0]).numpy(force=True))
        shares = np.concatenate(parts, 1)
        return Score({_at(k): shares[k] for k in range(self.steps + 1)})


def aligned(heights: Curves, density: Curves, *, deleting: bool) -> tuple[Float[np.ndarray, " n"], ...]:
    """Return the areas under the corrected curve, the response and the penalty.

    heights: probability after each step of erasing, from the whole image to the empty one.
    density: share of the map that is left after each step.
    deleting: True for deletion; False for insertion, whose curve runs from the empty image to the whole one.
    """
    whole, empty = heights[:, :1], heights[:, -1:]
    scaled = np.clip((heights - empty) / np.where(whole > empty, whole - empty, np.nan), 0, 1)
    response = np.minimum.accumulate(scaled, 1) if deleting else np.maximum.accumulate(scaled[:, ::-1], 1)[:, ::-1]
    penalty = np.abs(response - density)
    corrected = np.clip(response + penalty if deleting else response - penalty, 0, 1)
    low, high = corrected.min(1, keepdims=True), corrected.max(1, keepdims=True)
    score = (corrected - low) / np.where(high > low, high - low, np.nan)
    return tuple(np.trapezoid(curve, axis=1) / (heights.shape[1] - 1) for curve in (score, response, penalty))
