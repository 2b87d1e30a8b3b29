"""Neighbours: how far the maps of a method move when it runs again on images nearby."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from efface.base import draws
from efface.base.types import Images, Maps, Seeds
from efface.metrics.probes import Case, Needs
from efface.metrics.shared.effects import identity_of, image_blocks, one_a_sample, seeds_for
from efface.store.results import Score

Noise = Literal["uniform", "gaussian"]


@dataclass(frozen=True)
class Neighbours:
    """Maps of the image and of random images nearby, for the same class and with the same random numbers of the method.

    radius: half the width of the uniform noise, or the standard deviation of the Gaussian noise.
    """

    radius: float
    samples: int
    noise: Noise

    # the map at the image is computed again with the others, since a method may draw for the whole batch
    needs = Needs(maps=False, method=True, blocks=True)
    cost = one_a_sample
    identity = identity_of

    def __call__(self, case: Case) -> Score:
        parts = []
        for indices, images, classes in image_blocks(case, self.samples + 1, whole=True):
            seeds, movements = seeds_for(case, "neighbours", indices), []
            original = case.explain(case.network, images, classes, indices)
            for k in range(self.samples):
                noise = steps(draws.fold(seeds, k), tuple(images.shape[1:]), self.radius, self.noise)
                changed = case.explain(case.network, images + noise, classes, indices)
                movements.append(moved(original, changed, noise))
            parts.append(torch.stack(movements, 2).cpu())
        relative, slope, relative_slope = torch.cat(parts, 1).numpy()
        return Score(
            {
                "max": relative.max(1),
                "mean": relative.mean(1),
                "slope": slope.max(1),
                "relative_slope": relative_slope.max(1),
            }
        )


def steps(seeds: Seeds, shape: tuple[int, ...], radius: float, noise: Noise) -> Images:
    """Return one random step for each image. Each channel of each pixel is uniform in [-radius, radius), or normal."""
    if noise == "gaussian":
        return draws.normal(seeds, shape) * radius
    return (draws.uniform(seeds, shape) * 2 - 1) * radius


def moved(original: Maps, changed: Maps, step: Images) -> Float[Tensor, "3 n"]:
    """Return how far each map moved: relative to its own length, to the length of the step, and to both.

    Lengths are Euclidean, in float64. The relative values are NaN for a map of zeros.
    """
    away = torch.linalg.vector_norm((changed.double() - original.double()).flatten(1), dim=1)
    own = torch.linalg.vector_norm(original.double().flatten(1), dim=1)
    far = torch.linalg.vector_norm(step.double().flatten(1), dim=1)
    relative = (away / own).masked_fill(own == 0, torch.nan)
    return torch.stack([relative, away / far, relative / far])
