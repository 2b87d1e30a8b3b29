"""Concentration: measures of how few units hold most of a map's weight."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from efface.base.types import Maps
from efface.erase.ranking import for_unit
from efface.metrics.formula import Metric, Point, values_of
from efface.metrics.probes import Case, Needs
from efface.metrics.shared.effects import identity_of, image_blocks, one_an_image, reduced
from efface.plug.call import Call
from efface.store.results import Score


@dataclass(frozen=True)
class Concentration:
    """Gini index and entropy of the absolute values of a map, over its units. It needs no forward pass."""

    post: tuple[Call, ...]
    unit: Literal["pixel", "feature"]

    needs = Needs()
    cost = one_an_image
    identity = identity_of

    def __call__(self, case: Case) -> Score:
        channels, parts = case.data["test"].shape[0], []
        for indices, _, _ in image_blocks(case, 1):
            maps = for_unit(reduced(case, indices, self.post), self.unit, channels)
            parts.append(torch.stack([gini(maps), entropy(maps)]).cpu())
        values = torch.cat(parts, 1).numpy()
        return Score({"gini": values[0], "entropy": values[1]})


def described(name: str, caption: str) -> Metric:
    """Return the metric of one value of `Concentration`. It describes a map and does not judge it."""
    return Metric(
        probes=concentration,
        value=values_of("map", name),
        direction={name: "none"},
        sample="images",
        uses=frozenset({"unit", "post"}),
        caption=caption,
        family="complexity",
        axis="",
    )


def concentration(point: Point) -> dict[str, Concentration]:
    """Return the probe of a point. Pixels that are erased in groups still count one by one."""
    return {"map": Concentration(point.post, "feature" if point.unit == "feature" else "pixel")}


def gini(maps: Maps) -> Float[Tensor, " n"]:
    """Gini index of each map's absolute values, in float64. NaN for a map of zeros.

    0 if all values are equal, 1 - 1 / units if all but one are 0.
    Formula: sum of (2 i - units - 1) v_i over the values in ascending order, i from 1, divided by (units * sum of v_i).
    """
    sizes = maps.double().abs().flatten(1).sort(1).values
    units = sizes.shape[1]
    weights = 2 * torch.arange(1, units + 1, device=maps.device, dtype=sizes.dtype) - units - 1
    return (sizes * weights).sum(1) / (units * sizes.sum(1))


def entropy(maps: Maps) -> Float[Tensor, " n"]:
    """Entropy in nats of each map's absolute values divided by their sum, in float64. NaN for a map of zeros.

    It lies between 0 and log(units), the value for equal ones.
    Formula: - sum of p_i log p_i, where p_i = |v_i| / sum of |v|.
    """
    sizes = maps.double().abs().flatten(1)
    shares = sizes / sizes.sum(1, keepdim=True)
    return -torch.special.xlogy(shares, shares).sum(1)
