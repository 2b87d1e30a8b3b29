"""Monotonicity: whether the score rises as pixels return, and whether larger values of the map have larger effects."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Imputer, Ranks, Targets, TargetScore
from efface.erase.masking import erase
from efface.erase.ranking import removed
from efface.metrics.formula import Metric, values_of
from efface.metrics.probes import Case, Description, Needs, fill_of
from efface.metrics.shared.effects import (
    answers,
    check_positive,
    faithfulness,
    identity_of,
    image_blocks,
    seeds_for,
    spearman,
)
from efface.metrics.shared.groups import check_units, described, group, group_sums, ranked
from efface.metrics.shared.orders import UNIT
from efface.plug.call import Call
from efface.store.results import Score
from efface.training.loop import TrainingSettings

_STEPS = "monotonicity: steps"
_EXACT = 1e-6  # of the score's size; a smaller fall is rounding


def monotonicity(*, steps: int = 32, samples: int = 10, score: TargetScore = "logit") -> Metric:
    """Share of steps without a fall as groups of units return, and rank correlation of a group's value with its effect.

    The ranking is cut into `steps` groups of units. The fill is `imputer`, by default the data set's mean colour. The
    map is signed, with its channels summed (`post`).

    rising: the share of steps at which the score does not fall as groups return, least relevant first, to an empty
        image. A fall within 1e-6 of the score's size does not count.
    correlation: the rank correlation, over the groups, of |sum of the map over the group| with the mean square change
        of the score when only that group is erased.

    On a network that adds up contributions, `rising` is the share of groups with a contribution that is not negative. A
    true signed map gathers the negative pixels in groups of their own, so it scores less than a random map, whose
    groups are mixtures. `rising` is therefore shown but does not judge.

    NaN for an image with fewer units than steps. The correlation is also NaN if the map or the effect is equal for all
    groups.

    steps: number of groups, at least 3, at most the units. Each costs one forward pass, and `samples` more for the
        correlation.
    samples: erasures of each single group if the fill is drawn, at least 1. A fill without random numbers needs one.
    score: score of the explained class: logit, log_probability, probability or loss (cross entropy).

    Source: `rising`: Luss et al. 2019 (arXiv:1905.12698) and Arya et al. 2019 (arXiv:1909.03012);
        `correlation`: Nguyen & Martinez 2020 (arXiv:2007.07584).
    Differs: a share of steps instead of all or nothing; groups instead of single features; the square change is not
        divided by the squared score, which changes no rank.
    """
    check_positive("monotonicity", samples=samples)
    if steps < 3:
        raise ValueError(f"monotonicity: steps is {steps}; expected at least 3 for a correlation over them: raise it")
    return faithfulness(
        lambda point: {"groups": Groups(steps, samples, score, point.imputer, point.post, point.unit)},
        values_of("groups", "correlation", "rising"),
        {"correlation": "higher", "rising": "none"},
        "Groups of pixels return to an empty image, least relevant first, and each group is erased alone. With "
        "a truthful map, groups of larger value have a larger effect. The share of rising steps only describes.",
        uses=frozenset({"imputer", "unit", "groups", "post"}),
        ranges={"rising": UNIT},
    )


@dataclass(frozen=True)
class Groups:
    """The given network on images to which groups of a ranking return one by one, and on images without one group."""

    steps: int
    samples: int
    score: TargetScore
    imputer: Call
    post: tuple[Call, ...]
    unit: Literal["pixel", "feature"] | Call

    needs = Needs(blocks=True)
    identity = identity_of

    @property
    def times(self) -> int:
        """Number of erasures of a group. A fill without random numbers is the same each time."""
        return self.samples if self.imputer.wants("seeds") else 1

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes."""
        return float(self._passes * images["test"])

    def describe(self) -> Description:
        return described(self.steps, self.unit, self.imputer)

    def check(self, network: nn.Module, images: Images) -> None:  # noqa: ARG002
        """Raise ValueError if there are more groups than units in each of these images."""
        check_units(_STEPS, self.steps, self.unit, images)

    def __call__(self, case: Case) -> Score:
        results = []
        for indices, images, classes in image_blocks(case, self._passes):
            maps, ranks = ranked(case, indices, images, self.post, self.unit)
            grouped = isinstance(self.unit, Call)
            seeds = seeds_for(case, "monotonicity fill", indices)
            fills = [fill_of(case, self.imputer, draws.fold(seeds, k)) for k in range(self.times)]
            effects = group_effects(
                case.network,
                images,
                classes,
                ranks,
                fills,
                steps=self.steps,
                grouped=grouped,
                score=self.score,
                max_batch=case.max_batch,
            )
            sums = group_sums(maps, ranks, self.steps, grouped=grouped, setting=_STEPS)
            results.append((*effects, sums))
        return _score(*(torch.cat(parts).numpy() for parts in zip(*results, strict=True)))

    @property
    def _passes(self) -> int:
        return self.steps * (1 + self.times) + 1


def group_effects(
    network: nn.Module,
    images: Images,
    classes: Targets,
    ranks: Ranks,
    imputers: list[Imputer],
    *,
    steps: int,
    grouped: bool = False,
    score: TargetScore = "logit",
    max_batch: int = 256,
) -> tuple[Float[Tensor, "n _"], Float[Tensor, "n {steps}"]]:
    """Return the scores as groups return to the empty image, and the mean square change without each group.

    Group 0 holds the most relevant units. The numbers are in float64 on the CPU.
    imputers: the first fills the empty image. Each of them fills a single erased group.
    grouped: True if pixels that share a rank are one unit.
    """

    def returning(k: int) -> Images:
        return erase(images, removed(ranks, 1 - k / steps, "most_first", grouped=grouped), imputers[0])

    def alone(k: int) -> Images:
        return erase(images, group(ranks, k // len(imputers), steps, grouped=grouped), imputers[k % len(imputers)])

    rising = answers(network, images, classes, returning, steps + 1, score=score, max_batch=max_batch)
    without = answers(network, images, classes, alone, steps * len(imputers), score=score, max_batch=max_batch)
    changes = (rising[:, -1:] - without).square().unflatten(1, (steps, len(imputers))).mean(2)
    return rising, changes


def rising_share(scores: Float[np.ndarray, "n steps"]) -> Float[np.ndarray, " n"]:
    """Share of steps between consecutive scores that are not a fall."""
    allowed = _EXACT * np.abs(scores).max(1, keepdims=True)
    return np.asarray((np.diff(scores, axis=1) >= -allowed).mean(1))


def _score(
    scores: Float[np.ndarray, "n _"], changes: Float[np.ndarray, "n s"], sums: Float[np.ndarray, "n s"]
) -> Score:
    lacking = np.isnan(sums).any(1)
    noise = (_EXACT * np.abs(scores).max(1, keepdims=True)) ** 2
    correlation = spearman(np.abs(np.nan_to_num(sums)), np.where(changes > noise, changes, 0))
    return Score(
        {
            "rising": np.where(lacking, np.nan, rising_share(scores)),
            "correlation": np.where(lacking, np.nan, correlation),
        }
    )
