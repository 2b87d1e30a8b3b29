"""Signal rank: whether a map ranks the coordinates of the signal first or last.

Source: Shah, Jain & Netrapalli 2021, version 1, section 5 (arXiv:2102.12781v1).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from efface.base.types import VECTOR_ZERO
from efface.erase.ranking import for_unit
from efface.metrics.formula import Metric, values_of
from efface.metrics.probes import Case, Description, Needs
from efface.metrics.probes.description import SHARED, by_fields
from efface.metrics.shared.effects import identity_of, image_blocks, one_an_image, reduced
from efface.metrics.shared.located import share_of_top
from efface.metrics.shared.orders import SIGNED, UNIT
from efface.store.results import Score

NAMES = ("difference", "top", "bottom", "cosine")


def signal_rank(*, centre: float = VECTOR_ZERO / 255) -> Metric:
    """Share of images whose largest absolute value is the signal's, minus the share whose smallest is: from -1 to 1.

    Formula: difference = AQ(1) = top - bottom = P_top - P_bot; cosine = |cos(x, map)|.
    The map is the method's own, signed and unreduced, and `post` is not used. The published setting is `gradient` with
    `score: loss` and `explain: true`. The signal is the mask of the true object. Ties count by the signal's share of
    them, so a map of zeros has a difference of 0 and no cosine. Chance is 0. Standard networks give all coordinates
    nearly the same weight, so small differences decide: use several seeds. Read the metric beside the network's clean
    and robust accuracy, since a network that did not converge can also reach 1.

    centre: origin of x, in [0, 1]. Default, as published: the 0 of the stored vectors of `efface.data.synthetic`.

    Source: Shah, Jain & Netrapalli 2021, version 1, section 5 (arXiv:2102.12781v1), and its notebook.
    Differs: ties are shared, where the notebook takes the first coordinate.
    """
    return Metric(
        probes=lambda _point: {"signal": SignalRank(float(centre))},
        value=values_of("signal", *NAMES),
        direction={"difference": "higher", "top": "higher", "bottom": "lower", "cosine": "higher"},
        ranges={"difference": SIGNED} | dict.fromkeys(("top", "bottom", "cosine"), UNIT),
        sample="images",
        uses=frozenset(),
        read_with=("robust_accuracy",),
        caption="The share of images whose largest absolute value is at the coordinate of the class, minus the share "
        "whose smallest is. If the network uses only the signal, a truthful map scores 1.",
        family="localisation",
        axis="",
    )


@dataclass(frozen=True)
class SignalRank:
    """The four values of the stored maps."""

    centre: float

    needs = Needs(masks=True, blocks=True)
    cost = one_an_image
    identity = identity_of
    map_values = "feature"

    def describe(self) -> Description:
        return replace(by_fields(self), ties=SHARED, count="the first, and the last")

    def __call__(self, case: Case) -> Score:
        split = case.data["test"]
        parts = []
        for indices, images, _ in image_blocks(case, 1):
            maps = for_unit(reduced(case, indices, ()), "feature", split.shape[0])
            masks = case.masks[indices].to(images.device)[:, None].expand_as(maps)
            parts.append(torch.stack(ranked(images - self.centre, maps, masks)).numpy(force=True))
        return Score(dict(zip(NAMES, np.concatenate(parts, axis=1), strict=True)))


def ranked(
    vectors: Float[Tensor, "n c h w"], maps: Float[Tensor, "n c h w"], signal: Bool[Tensor, "n c h w"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return P_top - P_bot, P_top, P_bot and |cos(vector, map)| of each vector.

    The first three are NaN without a signal, the cosine is NaN for a vector or map of zeros.
    """
    sizes, one = maps.double().abs(), torch.ones(len(maps), dtype=torch.int64, device=maps.device)
    top, bottom = (share_of_top(ranking, signal, one) for ranking in (sizes, -sizes))
    flat = [values.double().flatten(1) for values in (vectors, maps)]
    length = flat[0].norm(dim=1) * flat[1].norm(dim=1)
    cosine = torch.where(length > 0, (flat[0] * flat[1]).sum(1).abs() / length, torch.nan)
    known = signal.flatten(1).any(1)
    difference, top, bottom = (torch.where(known, values, torch.nan).float() for values in (top - bottom, top, bottom))
    return difference, top, bottom, cosine.float()
