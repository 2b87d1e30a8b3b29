"""Completeness: whether the sum of a map equals the gain of the score over an empty image."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from efface.base.types import TargetScore
from efface.metrics.formula import Metric, values_of
from efface.metrics.probes import Case, Description, Needs, fill_of
from efface.metrics.probes.description import by_fields
from efface.metrics.shared.effects import falls, identity_of, image_blocks, reduced, seeds_for
from efface.plug.call import Call
from efface.store.results import Score
from efface.training.loop import TrainingSettings


def completeness(*, score: TargetScore = "logit") -> Metric:
    """Difference between a map's sum and the gain of the score over an empty image: `gap`, and `relative` to the gain.

    Formula: gap = |sum of the map - (score(image) - score(empty image))|; relative = gap / |score(image) -
    score(empty)|.

    The map is the method's own, signed and unreduced, and `post` is not used. `imputer` makes the empty image. The
    default is black. efface.impute.channel_mean gives the mean colour, efface.impute.blur an image without its
    structure. Both values are 0 for a method that divides up exactly this difference. `relative` is 1 for a map of
    zeros, NaN if the score does not change, and large if it hardly changes. Completeness is a property of methods that
    claim it, with their own empty image and score. It is no verdict on other methods, since any map can be scaled to
    have it.

    score: score of the explained class: logit, log_probability, probability or loss (cross entropy).

    Source: Sundararajan, Taly & Yan 2017, section 3 (arXiv:1703.01365).
    Differs: the code of Schwarzenberg & Castle 2020 averages signed differences, which cancel.
    """
    return Metric(
        probes=lambda point: {"sums": Sums(score, point.imputer)},
        value=values_of("sums", "relative", "gap"),
        direction={"relative": "lower", "gap": "lower"},
        sample="images",
        uses=frozenset({"imputer"}),
        caption="The map's sum beside the score that the image gained over an empty one. The gap is 0 for a map that "
        "divides this gain up among the pixels.",
        family="axiom",
        defaults={"imputer": {"call": "efface.impute.constant", "kwargs": {"value": 0.0}}},
        axis="",
    )


@dataclass(frozen=True)
class Sums:
    """The map's sum, and the scores of the image and of an empty image."""

    score: TargetScore
    imputer: Call

    needs = Needs(blocks=True)
    identity = identity_of

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes."""
        return 2.0 * images["test"]

    def describe(self) -> Description:
        return replace(by_fields(self), count="all")

    def __call__(self, case: Case) -> Score:
        pairs = []
        for indices, images, classes in image_blocks(case, 2):
            sums = reduced(case, indices, ()).double().flatten(1).sum(1).cpu()
            every = torch.ones_like(images[:, 0], dtype=torch.bool)
            empty = fill_of(case, self.imputer, seeds_for(case, "completeness fill", indices))(images, every)
            gained = falls(
                case.network, images, classes, [empty].__getitem__, 1, score=self.score, max_batch=case.max_batch
            )
            pairs.append(torch.stack([sums, gained[:, 0]], 1))
        gap, relative = gaps(*torch.cat(pairs).numpy().T)
        return Score({"gap": gap, "relative": relative})


def gaps(
    sums: Float[np.ndarray, " n"], gained: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return |sum of the map - gain of the score|, and the same divided by |gain|, NaN if the gain is 0."""
    gap = np.abs(sums - gained)
    return gap, np.divide(gap, np.abs(gained), out=np.full_like(gap, np.nan), where=gained != 0)
