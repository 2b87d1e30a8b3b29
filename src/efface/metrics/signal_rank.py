"""Signal rank: whether a map ranks the signal's coordinates first, or last.

Source: Shah, Jain & Netrapalli 2021, version 1, section 5 (arXiv:2102.12781v1).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from efface.erase.ranking import for_unit
from efface.metrics.formula import Metric
from efface.metrics.probes import Case, Description, Needs
from efface.metrics.probes.description import SHARED, by_fields
from efface.metrics.shared.effects import identity_of, image_blocks, one_an_image, reduced
from efface.metrics.shared.located import share_of_top
from efface.store.results import Score
from efface.types import VECTOR_ZERO

NAMES = ("difference", "top", "bottom", "cosine")


def signal_rank(*, centre: float = VECTOR_ZERO / 255) -> Metric:
    """How much oftener a map's largest than its smallest absolute value is the signal's: 1 at best, -1 at worst.

    `top` and `bottom` are P_top and P_bot, `difference` is AQ(1) = P_top - P_bot, `cosine` is |cos(x, map)|. The map
    is the method's own, signed and unreduced, whatever `post` says; published is `gradient` with `score: loss` and
    `explain: true`. The signal is the mask of the true object. Values that tie count by the share of them that is the
    signal's, so that a map of zeros has a difference of 0; its cosine is missing. Chance is 0.
    Standard networks weigh all coordinates nearly alike, so that small differences between them decide: take several
    seeds. Read it beside the network's clean and robust accuracy: a network that did not converge can reach 1, too.

    centre: what x is counted from, in [0, 1]; as published, the 0 of the stored vectors of `efface.data.synthetic`.

    Source: Shah, Jain & Netrapalli 2021, version 1, section 5 (arXiv:2102.12781v1), and its notebook.
    Differs: ties are shared, where the notebook takes the first coordinate.
    """
    return Metric(
        probes=lambda _point: {"signal": SignalRank(float(centre))},
        value=lambda scores: {name: scores["signal"].values[name] for name in NAMES},
        direction={"difference": "higher", "top": "higher", "bottom": "lower", "cosine": "higher"},
        sample="images",
        uses=frozenset(),
        read_with=("robust_accuracy",),
        caption="Whether the coordinate of the largest absolute value is the one that carries the class, less whether "
        "that of the smallest is. A truthful map of a network that looks at the signal alone has 1.",
        family="localisation",
        axis="",
        points_for=lambda _shape: (0.0,),
    )


@dataclass(frozen=True)
class SignalRank:
    """The four values of the stored maps."""

    centre: float

    needs = Needs(masks=True)
    cost = one_an_image
    identity = identity_of
    map_values = "feature"

    def describe(self) -> Description:
        return replace(by_fields(self), ties=SHARED, count="the first, and the last")

    def __call__(self, case: Case) -> Score:
        split = case.data["test"]
        found = []
        for rows, images, _ in image_blocks(case, 1):
            maps = for_unit(reduced(case, rows, ()), "feature", split.shape[0])
            masks = case.masks[rows].to(images.device)[:, None].expand_as(maps)
            found.append(torch.stack(ranked(images - self.centre, maps, masks)).numpy(force=True))
        return Score(dict(zip(NAMES, np.concatenate(found, axis=1), strict=True)))


def ranked(
    vectors: Float[Tensor, "n c h w"], maps: Float[Tensor, "n c h w"], signal: Bool[Tensor, "n c h w"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Of each vector: P_top - P_bot, P_top, P_bot, |cos(vector, map)|; NaN without a signal, or without a direction."""
    sizes, one = maps.double().abs(), torch.ones(len(maps), dtype=torch.int64, device=maps.device)
    top, bottom = (share_of_top(each, signal, one) for each in (sizes, -sizes))
    flat = [each.double().flatten(1) for each in (vectors, maps)]
    length = flat[0].norm(dim=1) * flat[1].norm(dim=1)
    cosine = torch.where(length > 0, (flat[0] * flat[1]).sum(1).abs() / length, torch.nan)
    known = signal.flatten(1).any(1)
    difference, top, bottom = (torch.where(known, each, torch.nan).float() for each in (top - bottom, top, bottom))
    return difference, top, bottom, cosine.float()
