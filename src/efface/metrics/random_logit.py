"""Random logit: similarity of the maps of two classes.

Source: Sixt, Granz & Landgraf 2020, section 5 (arXiv:1912.09818).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from efface.base import draws
from efface.base.types import Images, Maps, Seeds, Targets
from efface.metrics.formula import Metric, values_of
from efface.metrics.probes import Case, Needs
from efface.metrics.shared.effects import one_an_image
from efface.metrics.shared.similarity import BETTER, NAMES, RANGES, compared, compares
from efface.store.results import Score

Other = Literal["random", "runner_up"]


def random_logit(*, other: Other = "random") -> Metric:
    """Similarity of the maps of the explained class with those of another class of the same image.

    Spearman and SSIM of the channel-summed maps, signed and absolute; `post` is not used. If two classes have mirrored
    logits, even true maps are equal or opposite. It costs one map and one forward pass for each image.

    other: random: any other class, drawn for each image, the same for all methods. runner_up: the most probable other
        class.

    Source: Sixt et al. 2020, section 5 (arXiv:1912.09818).
    Differs: Spearman and signed maps beside its SSIM of absolute ones; SSIM is of maps divided by their largest
        absolute value.
    """
    return Metric(
        probes=lambda _point: {"alike": OtherClass(other)},
        value=values_of("alike", *NAMES),
        direction=BETTER,
        ranges=RANGES,
        sample="images",
        uses=frozenset(),
        caption=f"The method explains {_SAYS[other]} class of the same image. With a truthful method this map is "
        "different.",
        family="randomisation",
        axis="",
    )


_SAYS = {"random": "another", "runner_up": "the second most probable"}


def other_class(logits: Float[Tensor, "n k"], classes: Targets, *, other: Other, seeds: Seeds) -> Targets:
    """Return another class for each image. ValueError: there is no other class.

    seeds: one for each image, for the draw.
    """
    count = logits.shape[1]
    if count < 2:
        raise ValueError(f"random_logit: the network has {count} class, expected 2 or more; drop this metric")
    if other == "runner_up":
        return logits.scatter(1, classes[:, None], -torch.inf).argmax(1)
    drawn = (draws.uniform(seeds, (1,))[:, 0] * (count - 1)).long()
    return drawn + (drawn >= classes).long()


@dataclass(frozen=True)
class OtherClass:
    """Maps of another class, compared with the stored maps."""

    other: Other

    needs = Needs(method=True, blocks=True)
    cost = one_an_image
    describe = compares

    def identity(self) -> dict[str, Any]:
        return {"probe": "other class", "other": self.other}

    def __call__(self, case: Case) -> Score:
        network, explain = case.network, case.explain

        def ask(indices: Tensor, images: Images, classes: Targets) -> Maps:
            with torch.no_grad():
                logits = network(images)
            seeds = draws.seeds_of(f"{case.seed} random_logit", indices).to(case.device)
            return explain(network, images, other_class(logits, classes, other=self.other, seeds=seeds), indices)

        return compared(case, ask)
