"""SaCo, the salience-guided faithfulness coefficient: whether groups of larger sums in the map have larger effects."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.types import Images, TargetScore, Unit
from efface.erase.masking import erase, to_float, to_stored
from efface.metrics.formula import Metric, values_of
from efface.metrics.probes import Case, Description, Needs, fill_of
from efface.metrics.shared.effects import answers, faithfulness, identity_of, image_blocks, seeds_for
from efface.metrics.shared.groups import check_units, described, group, group_sums, ranked
from efface.models.memory import at_once
from efface.plug.call import Call
from efface.store.results import Score
from efface.training.loop import TrainingSettings

_GROUPS = "saco: groups"


def saco(*, groups: int = 10, score: TargetScore = "probability") -> Metric:
    """Agreement, over pairs of groups of units, of the difference in the map with the difference in effect.

    The units are cut into `groups` equal groups by rank, G_1 the most relevant. s_i is the map's sum over G_i, d_i the
    fall of the score when G_i alone is erased. The coefficient is the sum over all pairs i < j of sgn (s_i - s_j),
    divided by the sum of |s_i - s_j|, where sgn is 1 if d_i >= d_j and -1 otherwise. It lies between -1 and 1. It is 1
    if all groups have effects in the order of their sums, and 0 on average for a random map whose groups have distinct
    effects. Equal effects count as agreement, as in the paper. So a score that no group changes gives 1 to every map.

    NaN for a map whose units are all equal, and for an image with fewer units than groups.

    groups: number of groups, at least 2, at most the units. Each costs one forward pass.
    score: score of the explained class: logit, log_probability, probability or loss (cross entropy).

    Source: Wu, Kang, Tang, Hong & Yan 2024 (On the faithfulness of vision transformer explanations, arXiv:2404.01415).
    Differs: the fill is the study's, by default the mean colour of the data set.
    """
    if groups < 2:
        raise ValueError(f"{_GROUPS} is {groups}; expected at least 2, since pairs are compared: raise it")
    return faithfulness(
        lambda point: {"groups": RankedGroups(groups, score, point.imputer, point.post, point.unit)},
        values_of("groups", "coefficient"),
        {"coefficient": "higher"},
        "The pixels are cut into groups by rank, and each group is erased alone. Of two groups, a truthful map "
        "gives the larger sum to the one with the larger effect. The difference of the sums is the weight.",
        uses=frozenset({"imputer", "unit", "groups", "post"}),
    )


@dataclass(frozen=True)
class RankedGroups:
    """The coefficient, from the given network on images without one group of a ranking."""

    groups: int
    score: TargetScore
    imputer: Call
    post: tuple[Call, ...]
    unit: Unit | Call

    needs = Needs(blocks=True)
    identity = identity_of

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes."""
        return float(self.groups * images["test"])

    def describe(self) -> Description:
        return described(self.groups, self.unit, self.imputer)

    def check(self, network: nn.Module, images: Images) -> None:  # noqa: ARG002
        """Raise ValueError if there are more groups than units in each of these images."""
        check_units(_GROUPS, self.groups, self.unit, images)

    def __call__(self, case: Case) -> Score:
        first = torch.empty(1, *case.data["test"].shape, device=case.device)
        narrow, grouped = replace(case, max_batch=at_once(first, case.max_batch)), isinstance(self.unit, Call)
        found = []
        for indices, images, classes in image_blocks(narrow, self.groups, whole=True):
            maps, ranks = ranked(case, indices, images, self.post, self.unit)
            fill = fill_of(case, self.imputer, seeds_for(case, "saco fill", indices))
            masks = [group(ranks, k, self.groups, grouped=grouped) for k in range(self.groups)]
            left = answers(
                case.network,
                images,
                classes,
                lambda k: to_float(to_stored(erase(images, masks[k], fill))),  # noqa: B023  called in this round
                self.groups,
                score=self.score,
                max_batch=narrow.max_batch,
            )
            varies = (maps.flatten(1).amax(1) > maps.flatten(1).amin(1)).cpu()
            sums = group_sums(maps, ranks, self.groups, grouped=grouped, setting=_GROUPS)
            found.append(coefficients(torch.where(varies[:, None], sums, torch.nan), left))
        return Score({"coefficient": torch.cat(found).numpy()})


def coefficients(sums: Float[Tensor, "n groups"], left: Float[Tensor, "n groups"]) -> Float[Tensor, " n"]:
    """Return SaCo of each image. NaN if all sums are equal.

    sums: of the map over each group, most relevant first.
    left: score without each group. It is the smaller, the larger the effect.
    """
    one, other = torch.triu_indices(sums.shape[1], sums.shape[1], 1)
    weights = sums[:, one] - sums[:, other]
    agrees = torch.where(left[:, one] <= left[:, other], 1.0, -1.0).double()
    return (agrees * weights).sum(1) / weights.abs().sum(1)
