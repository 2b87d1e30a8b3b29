"""Density ratio: how the network's implied density of a class changes when noise is added to an image of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface import draws
from efface.erase.masking import to_float
from efface.metrics.formula import Metric
from efface.metrics.probes import Case, Needs
from efface.metrics.shared.effects import falls, identity_of, one_a_sample, positive, seeds_for
from efface.store.arrays import read_rows
from efface.store.results import Score
from efface.types import Images, Targets

LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
MOST = 80.0
"""The largest change of a logit that counts: its ratio of 6e34 says all, and its square is no infinity yet."""


def density_ratio(*, levels: Sequence[float] = LEVELS, samples: int = 4) -> Metric:
    """Mean of exp(f(image + noise) - f(image)) over noise, f the logit of the true class: a curve over noise levels.

    Read as an energy, a logit is the logarithm of a density of its class, up to a constant that the ratio does not
    have; so the ratio says how much more likely the network holds a noisy image than a real one. 1 at noise of 0; a
    density that lies on the data falls with the noise, towards 0. Noisy images are not clipped. Each image has the same
    directions of noise at all levels.

    `change` is the mean of f(image + noise) - f(image) itself: the mean of an exponential is ruled by its few largest,
    and an image whose logit rises by 20 outweighs a million others. In the ratio a change above 80 counts as 80. Logits
    are on the network's own scale: compare networks of one kind of training only with care.

    levels: standard deviations of the noise in units of [0, 1], ascending, above 0.
    samples: noisy images for each image and level, at least 1; each costs a forward pass.

    Source: Srinivas & Fleuret 2021, section 5 and figure 1 (arXiv:2006.09128); they say no levels.
    """
    positive("density_ratio", **{f"level {each}": each for each in levels}, samples=samples)
    if not levels or list(levels) != sorted(set(levels)):
        raise ValueError(f"density_ratio: levels are {list(levels)}; expected at least one, each above the last")
    return Metric(
        probes=lambda point: {"noisy": Noisy(point.x, samples)},
        value=lambda scores: {name: scores["noisy"].values[name] for name in ("ratio", "change")},
        direction={"ratio": "lower", "change": "none"},
        sample="images",
        uses=frozenset(),
        caption="The network's logit, read as the logarithm of a density, of noisy images beside that of the images. A "
        "network whose density lies on the data holds noise for less likely.",
        axis="noise level",
        point_settings="'levels'",
        points_for=lambda _: tuple(levels),
        summary="mean",
        subject="network",
    )


@dataclass(frozen=True)
class Noisy:
    """The ratio at one level of noise, for each image a mean over its noise."""

    level: float
    samples: int

    needs = Needs(maps=False)
    cost = one_a_sample
    identity = identity_of
    explains = "true"

    def __call__(self, case: Case) -> Score:
        test, found = case.data["test"], []
        together = max(1, case.max_batch // self.samples)
        for rows in torch.arange(len(test)).split(together):
            images = to_float(read_rows(test.images, rows).to(case.device))
            seeds = seeds_for(case, "density ratio", rows)
            noise = torch.stack([draws.normal(draws.fold(seeds, k), test.shape) for k in range(self.samples)])
            targets = test.targets[rows.to(test.targets.device)].to(case.device)
            found.append(changes(case.network, images, targets, noise * self.level, max_batch=case.max_batch))
            case.advance(float((self.samples + 1) * len(rows)))
        change = torch.cat(found).numpy()
        return Score({"ratio": ratios(change), "change": change.mean(1)})


def changes(
    network: nn.Module, images: Images, targets: Targets, noise: Float[Tensor, "s n c h w"], *, max_batch: int = 256
) -> Float[Tensor, "n s"]:
    """What each of the noises adds to the target's logit, in float64 on the CPU."""
    return -falls(network, images, targets, lambda k: images + noise[k], len(noise), max_batch=max_batch)


def ratios(change: Float[np.ndarray, "n s"]) -> Float[np.ndarray, " n"]:
    """Mean of exp(change) for each image, a change above 80 counted as 80: means over images stay finite."""
    return np.exp(np.minimum(change, MOST)).mean(1)
