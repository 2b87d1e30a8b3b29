"""Localisation: metrics of how much of a map lies on the true object, their scores and probe. They need masks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from efface.erase.post import apply_post
from efface.erase.ranking import for_unit
from efface.metrics.formula import Better, Metric, values_of
from efface.metrics.probes import Case, Description, Needs, Probe
from efface.metrics.probes.description import SHARED, by_fields
from efface.metrics.shared.orders import UNIT
from efface.plug.call import Call
from efface.store.results import Score
from efface.training.loop import TrainingSettings

_AS_MANY = "as many as the object has"
Measure = Literal["pointing_game", "precision", "relevance_mass", "relevance_rank"]


def localisation(
    name: str,
    probe: Callable[[tuple[Call, ...]], Probe],
    values: Mapping[str, str],
    caption: str,
    *,
    better: Better = "higher",
    read_with: tuple[str, ...] = (),
) -> Metric:
    """Return a metric whose values in [0, 1] come from one probe of the maps after `post`.

    name: name of the probe. probe: function of `post`.
    values: for each value of the metric, its name in the score of the probe.
    """
    return Metric(
        probes=lambda point: {name: probe(point.post)},
        value=values_of(name, **values),
        direction=dict.fromkeys(values, better),
        ranges=dict.fromkeys(values, UNIT),
        sample="images",
        uses=frozenset({"post"}),
        read_with=read_with,
        caption=caption,
        family="localisation",
        axis="",
    )


def located(measure: Measure, value: str, caption: str, *, tolerance: float = 0.0) -> Metric:
    """Return the metric of one of the scores below. value: its name in the metric."""
    return localisation("located", lambda post: Located(measure, post, tolerance), {value: measure}, caption)


def pointing_game(
    maps: Float[Tensor, "n h w"], masks: Bool[Tensor, "n h w"], *, tolerance: float = 0.0
) -> Float[Tensor, " n"]:
    """Return 1 if a map's largest value lies on the object, otherwise 0. NaN without an object.

    Values that tie count by their share on the object.

    tolerance: distance from the object that still counts, in pixels between centres, at least 0.

    Source: Zhang et al. 2018, section 4.2 (arXiv:1608.00507), with a tolerance of 15 pixels.
    """
    near = _widened(masks, tolerance)
    largest = maps == maps.amax((1, 2), keepdim=True)
    shares = (largest & near).sum((1, 2)) / largest.sum((1, 2))
    return torch.where(masks.any(2).any(1), shares, torch.nan)


def relevance_mass(maps: Float[Tensor, "n h w"], masks: Bool[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Share of the positive relevance on the object. NaN without an object or without positive relevance."""
    positive = maps.double().clamp(min=0)
    whole = positive.sum((1, 2))
    shares = (positive * masks).sum((1, 2)) / whole
    return torch.where((whole > 0) & masks.any(2).any(1), shares, torch.nan).float()


def relevance_rank(maps: Float[Tensor, "n h w"], masks: Bool[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Share on the object of the k pixels of highest relevance, where k is the object's size. NaN without an object.

    Pixels that tie for the last places count by their share on the object. This is the mean over all orders.
    """
    size = masks.flatten(1).sum(1)
    return torch.where(size > 0, share_of_top(maps, masks, size), torch.nan).float()


def share_of_top(
    maps: Float[Tensor, "n *units"], inside: Bool[Tensor, "n *units"], size: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Share inside of the `size` units with the largest values, in float64.

    Units that tie for the last places count by their share inside. This is the mean over all orders.
    """
    values, chosen = maps.flatten(1), inside.flatten(1)
    least = values.sort(dim=1, descending=True).values.gather(1, (size - 1).clamp(min=0)[:, None])
    above, tied = values > least, values == least
    left = (size - above.sum(1)).double()  # places for the units that tie at the last value
    return ((above & chosen).sum(1) + left * (tied & chosen).sum(1) / tied.sum(1)) / size


@dataclass(frozen=True)
class Located:
    """One of these scores, for the maps after `post`."""

    measure: Measure
    post: tuple[Call, ...]
    tolerance: float = 0.0

    needs = Needs(masks=True, blocks=True)
    map_values = "pixel"

    def describe(self) -> Description:
        """Return the description. The mass ranks no pixel, so it has neither ties nor count."""
        counts = {"pointing_game": "the first"} | dict.fromkeys(("precision", "relevance_rank"), _AS_MANY)
        if self.measure not in counts:
            return by_fields(self)
        return replace(by_fields(self), ties=SHARED, count=counts[self.measure])

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Number of maps read, which costs almost nothing."""
        return float(images["test"])

    def identity(self) -> dict[str, Any]:
        post = [step.identity() for step in self.post]
        return {"probe": "located", "measure": self.measure, "post": post, "tolerance": self.tolerance}

    def __call__(self, case: Case) -> Score:
        split, parts = case.data["test"], []
        for indices in case.test_rows.split(case.max_batch):
            maps = apply_post(case.maps["test"].take(indices).to(case.device), self.post)
            maps, masks = for_unit(maps, "pixel", split.shape[0]), case.masks[indices].to(case.device)
            parts.append(self._of(maps, masks).float().numpy(force=True))
            case.advance(float(len(indices)))
        return Score({self.measure: np.concatenate(parts)})

    def _of(self, maps: Float[Tensor, "n h w"], masks: Bool[Tensor, "n h w"]) -> Float[Tensor, " n"]:
        match self.measure:
            case "pointing_game":
                return pointing_game(maps, masks, tolerance=self.tolerance)
            case "precision":
                return relevance_rank(maps.abs(), masks)
            case "relevance_mass":
                return relevance_mass(maps, masks)
            case "relevance_rank":
                return relevance_rank(maps, masks)


def _widened(masks: Bool[Tensor, "n h w"], tolerance: float) -> Bool[Tensor, "n h w"]:
    """Return the object and all pixels within the tolerance."""
    reach = int(tolerance)
    if reach == 0:
        return masks
    places = torch.arange(-reach, reach + 1, device=masks.device).float()
    disc = (places[:, None] ** 2 + places**2 <= tolerance**2).float()
    return F.conv2d(masks[:, None].float(), disc[None, None], padding=reach)[:, 0] > 0.5
