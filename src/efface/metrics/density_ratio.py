"""Density ratio: how the density of a class that the network implies changes when noise is added to an image of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Targets
from efface.erase.masking import to_float
from efface.metrics.formula import Metric, values_of
from efface.metrics.probes import Case, Needs
from efface.metrics.shared.effects import check_positive, falls, identity_of, one_a_sample, seeds_for
from efface.store.arrays import read_rows
from efface.store.results import Score

LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
MOST = 80.0
"""Largest change of a logit that counts. Its ratio is 6e34, whose square is still finite."""


def density_ratio(*, levels: Sequence[float] = LEVELS, samples: int = 4) -> Metric:
    """Mean of exp(f(image + noise) - f(image)) over noise, f the logit of the true class: a curve over noise levels.

    A logit can be read as the logarithm of a density of its class, up to a constant. The constant cancels in the ratio,
    so the ratio is the density of a noisy image divided by that of the image. It is 1 for noise of 0. If the density is
    concentrated on the data, the ratio falls with the noise, towards 0. Noisy images are not clipped. Each image has
    the same directions of noise at all levels.

    `change` is the mean of f(image + noise) - f(image) itself. The mean of an exponential depends on its few largest
    values: an image whose logit rises by 20 outweighs a million others. In the ratio, a change above 80 counts as 80.
    Logits have the scale of their network, so compare only networks with the same kind of training, and with care.

    levels: standard deviations of the noise in units of [0, 1], ascending, above 0.
    samples: noisy images for each image and level, at least 1. Each costs a forward pass.

    Source: Srinivas & Fleuret 2021, section 5 and figure 1 (arXiv:2006.09128); they state no levels.
    """
    check_positive("density_ratio", **{f"level {level}": level for level in levels}, samples=samples)
    if not levels or list(levels) != sorted(set(levels)):
        raise ValueError(f"density_ratio: levels are {list(levels)}; expected at least one, each above the last")
    return Metric(
        probes=lambda point: {"noisy": Noisy(point.x, samples)},
        value=values_of("noisy", "ratio", "change"),
        direction={"ratio": "lower", "change": "none"},
        sample="images",
        uses=frozenset(),
        caption="The network's logit is read as the logarithm of a density. The ratio compares the density of noisy "
        "images with that of the images. If the density is concentrated on the data, noise lowers it.",
        axis="noise level",
        point_settings="'levels'",
        points_for=lambda _: tuple(levels),
        summary="mean",
        subject="network",
    )


@dataclass(frozen=True)
class Noisy:
    """The ratio at one noise level, as a mean over the noise of each image."""

    level: float
    samples: int

    needs = Needs(maps=False)
    cost = one_a_sample
    identity = identity_of
    explains = "true"

    def __call__(self, case: Case) -> Score:
        test, parts = case.data["test"], []
        together = max(1, case.max_batch // self.samples)
        for indices in torch.arange(len(test)).split(together):
            images = to_float(read_rows(test.images, indices).to(case.device))
            seeds = seeds_for(case, "density ratio", indices)
            noise = torch.stack([draws.normal(draws.fold(seeds, k), test.shape) for k in range(self.samples)])
            targets = test.targets[indices.to(test.targets.device)].to(case.device)
            parts.append(changes(case.network, images, targets, noise * self.level, max_batch=case.max_batch))
            case.advance(float((self.samples + 1) * len(indices)))
        change = torch.cat(parts).numpy()
        return Score({"ratio": ratios(change), "change": change.mean(1)})


def changes(
    network: nn.Module, images: Images, targets: Targets, noise: Float[Tensor, "s n c h w"], *, max_batch: int = 256
) -> Float[Tensor, "n s"]:
    """Return the change of the target's logit under each noise, in float64 on the CPU."""
    return -falls(network, images, targets, lambda k: images + noise[k], len(noise), max_batch=max_batch)


def ratios(change: Float[np.ndarray, "n s"]) -> Float[np.ndarray, " n"]:
    """Return the mean of exp(change) for each image. A change above 80 counts as 80, so means stay finite."""
    return np.exp(np.minimum(change, MOST)).mean(1)
