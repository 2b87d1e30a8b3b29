"""Completeness: whether a map adds up to what the score gained over an empty image."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from efface.metrics.formula import Metric
from efface.metrics.probes import Case, Description, Needs, fill_of
from efface.metrics.probes.description import by_fields
from efface.metrics.shared.effects import falls, identity_of, image_blocks, reduced, seeds_for
from efface.plug.call import Call
from efface.store.results import Score
from efface.training.loop import TrainingSettings
from efface.types import TargetScore


def completeness(*, score: TargetScore = "logit") -> Metric:
    """How far a map's sum is from score(image) - score(empty image): `gap` as it is, `relative` to that difference.

    The map is the method's own, signed and unreduced, whatever `post` says. The empty image is the `imputer`'s: black
    unless said otherwise, efface.impute.channel_mean for the mean colour, efface.impute.blur for the image without its
    structure. 0 for a method that divides up exactly this difference; 1 (relative) for a map of zeros. A property of
    methods that claim to add up, with their own empty image and score, and no verdict on others: any map can be scaled
    to have it. `relative` is NaN where the score does not change, and large where it hardly does.

    score: the score, of the class explained: logit, log_probability, probability or loss (cross entropy).

    Source: Sundararajan, Taly & Yan 2017, section 3 (arXiv:1703.01365).
    Differs: the code of Schwarzenberg & Castle 2020 averages signed differences, which cancel.
    """
    return Metric(
        probes=lambda point: {"sums": Sums(score, point.imputer)},
        value=lambda scores: {name: scores["sums"].values[name] for name in ("relative", "gap")},
        direction={"relative": "lower", "gap": "lower"},
        sample="images",
        uses=frozenset({"imputer"}),
        caption="The map's sum beside the score that the image gained over an empty one. The gap is 0 for a map that "
        "divides this gain up among the pixels.",
        family="axiom",
        defaults={"imputer": {"call": "efface.impute.constant", "kwargs": {"value": 0.0}}},
        axis="",
        points_for=lambda _: (0.0,),
    )


@dataclass(frozen=True)
class Sums:
    """The map's sum, and the score of the image and of an empty one."""

    score: TargetScore
    imputer: Call

    needs = Needs()
    identity = identity_of

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward rows."""
        return 2.0 * images["test"]

    def describe(self) -> Description:
        return replace(by_fields(self), count="all")

    def __call__(self, case: Case) -> Score:
        found = []
        for rows, images, classes in image_blocks(case, 2):
            sums = reduced(case, rows, ()).double().flatten(1).sum(1).cpu()
            every = torch.ones_like(images[:, 0], dtype=torch.bool)
            empty = fill_of(case, self.imputer, seeds_for(case, "completeness fill", rows))(images, every)
            gained = falls(
                case.network, images, classes, [empty].__getitem__, 1, score=self.score, max_batch=case.max_batch
            )
            found.append(torch.stack([sums, gained[:, 0]], 1))
        gap, relative = gaps(*torch.cat(found).numpy().T)
        return Score({"gap": gap, "relative": relative})


def gaps(
    sums: Float[np.ndarray, " n"], gained: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """|sum of the map - what the score gained|, and the same in units of that gain; NaN where it gained nothing."""
    gap = np.abs(sums - gained)
    return gap, np.divide(gap, np.abs(gained), out=np.full_like(gap, np.nan), where=gained != 0)
