"""Infidelity: the error of a map's prediction of how the score falls under a change of the image."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Seeds, Targets, TargetScore
from efface.erase.ranking import for_unit
from efface.metrics.formula import Metric, Point, values_of
from efface.metrics.probes import Case, Description, Needs, fill_of
from efface.metrics.probes.description import by_fields
from efface.metrics.shared.effects import (
    check_positive,
    falls,
    identity_of,
    image_blocks,
    one_a_sample,
    reduced,
    seeds_for,
)
from efface.metrics.shared.subsets import subset_effects
from efface.plug.call import Call
from efface.store.results import Score

Effects = tuple[Float[Tensor, "n s"], Float[Tensor, "n s"]]
"""Of each image and change: the fall of the score that the map predicts, and the fall itself."""


def infidelity(
    *,
    perturbation: Literal["square", "noise"] = "square",
    samples: int = 100,
    size: int = 8,
    noise: float = 0.2,
    score: TargetScore = "logit",
) -> Metric:
    """Mean square error of the fall of the score that a map predicts, over random changes of the image.

    Formula: infidelity = mean of (prediction - (score(image) - score(changed image)))^2.

    square: a square of the image is filled (`imputer`). The map predicts its sum over the square, as suits a map of
        contributions (gradient x input, integrated gradients, LRP, a CAM).
    noise: Gaussian noise I is subtracted. The map predicts the sum of I times the map, as suits a gradient.
    A map of the other kind gets a large error by its kind.

    `infidelity` is this mean in the score's squared units. It changes with the map's scale. `scaled` first multiplies
    the map of each image by the factor that makes the error smallest. It lies between 0 and the mean square of the
    falls, which is the value of a map of zeros. It is 0 for an exact map of a network that adds up contributions.

    The map is signed, with single channel values if the method has them; `post` may change it.

    perturbation: square, or noise, which does not use `imputer`.
    samples: changes of each image, at least 1. Each costs one forward pass.
    size: width of the square in pixels, at most that of the image.
    noise: standard deviation, above 0, in units of [0, 1].
    score: score of the explained class: logit, log_probability, probability or loss (cross entropy).

    Source: Yeh, Hsieh, Suggala, Inouye & Ravikumar 2019 (arXiv:1901.09392); the optimal
        scale from their released code.
    Differs: a square has one size; the scale is found for every map, also where a map says it needs none.
    """
    check_positive("infidelity", samples=samples, size=size, noise=noise)

    def probes(point: Point) -> dict[str, Any]:
        if perturbation == "noise":
            return {"changes": Noise(samples, noise, score, point.post)}
        return {"changes": Squares(samples, size, score, point.imputer, point.post)}

    return Metric(
        probes=probes,
        value=values_of("changes", "scaled", "infidelity"),
        direction={"scaled": "lower", "infidelity": "lower"},
        sample="images",
        uses=frozenset({"post"}) if perturbation == "noise" else frozenset({"imputer", "post"}),
        caption="Random squares of the image are filled, or noise is subtracted. A truthful map predicts how far the "
        "score falls. Shown is the mean square of its error after the best scaling of the map.",
        family="faithfulness",
        defaults={"post": []} | ({} if perturbation == "noise" else {"imputer": "efface.impute.channel_mean"}),
        axis="",
    )


@dataclass(frozen=True)
class Squares:
    """The given network on images with a random square filled, and the map's sum over the square."""

    samples: int
    size: int
    score: TargetScore
    imputer: Call
    post: tuple[Call, ...]

    needs = Needs(blocks=True)
    cost = one_a_sample
    identity = identity_of

    def describe(self) -> Description:
        return replace(by_fields(self), unit=f"square of {self.size} x {self.size} pixels", count="1")

    def check(self, network: nn.Module, images: Images) -> None:  # noqa: ARG002
        """Raise ValueError if the square is larger than the images."""
        squares(images.shape[2], images.shape[3], self.size, torch.zeros(1, 1, 2))

    def __call__(self, case: Case) -> Score:
        def effects(indices: Tensor, images: Images, classes: Targets) -> Effects:
            maps = reduced(case, indices, self.post)
            maps = maps.sum(1) if maps.ndim == 4 else maps
            places = corners(seeds_for(case, "squares", indices), self.samples)
            removed = squares(images.shape[2], images.shape[3], self.size, places)
            seeds = seeds_for(case, "squares fill", indices)
            fills = [fill_of(case, self.imputer, draws.fold(seeds, k)) for k in range(self.samples)]
            return subset_effects(
                case.network, images, classes, maps, removed, fills, score=self.score, max_batch=case.max_batch
            )

        return _score(effects(*block) for block in image_blocks(case, self.samples + 1))


@dataclass(frozen=True)
class Noise:
    """The given network on noisy images, and the map's prediction for the noise."""

    samples: int
    noise: float
    score: TargetScore
    post: tuple[Call, ...]

    needs = Needs(blocks=True)
    cost = one_a_sample
    identity = identity_of
    map_values = "feature"

    def __call__(self, case: Case) -> Score:
        def effects(indices: Tensor, images: Images, classes: Targets) -> Effects:
            maps = for_unit(reduced(case, indices, self.post), "feature", images.shape[1])
            seeds, shape = seeds_for(case, "infidelity noise", indices), tuple(images.shape[1:])
            steps = torch.stack([draws.normal(draws.fold(seeds, k), shape) for k in range(self.samples)])
            return noise_effects(
                case.network, images, classes, maps, steps * self.noise, score=self.score, max_batch=case.max_batch
            )

        return _score(effects(*block) for block in image_blocks(case, self.samples + 1))


def noise_effects(
    network: nn.Module,
    images: Images,
    classes: Targets,
    maps: Images,
    steps: Float[Tensor, "s n c h w"],
    *,
    score: TargetScore = "logit",
    max_batch: int = 256,
) -> Effects:
    """Return the sum of map times step, and the fall of the score at image - step. Float64, on the CPU.

    score: score of the explained class.
    max_batch: images in one pass. It limits the memory.
    """
    products = torch.stack([(step.double() * maps).flatten(1).sum(1) for step in steps], 1)
    fallen = falls(network, images, classes, lambda k: images - steps[k], len(steps), score=score, max_batch=max_batch)
    return products.cpu(), fallen


def infidelities(
    predicted: Float[np.ndarray, "n s"], fallen: Float[np.ndarray, "n s"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return the mean square error of the predictions, and the smallest one after scaling each row."""
    energy, products = (predicted**2).mean(1), (predicted * fallen).mean(1)
    scale = np.divide(products, energy, out=np.zeros_like(products), where=energy > 0)
    scaled = ((scale[:, None] * predicted - fallen) ** 2).mean(1)
    return ((predicted - fallen) ** 2).mean(1), scaled


def corners(seeds: Seeds, samples: int) -> Float[Tensor, "{samples} n 2"]:
    """Return the places of squares, from 0 (top, left) to 1 (as far down or right as they fit)."""
    return torch.stack([draws.uniform(draws.fold(seeds, k), (2,)) for k in range(samples)])


def squares(h: int, w: int, size: int, places: Float[Tensor, "s n 2"]) -> Bool[Tensor, "s n {h} {w}"]:
    """Return masks that are True in the square of each place."""
    if size > min(h, w):
        raise ValueError(f"infidelity: size is {size}; expected at most the image's {min(h, w)} pixels: lower it")
    down, across = _span(h, size, places[..., 0]), _span(w, size, places[..., 1])
    return down[..., :, None] & across[..., None, :]


def _span(length: int, size: int, places: Float[Tensor, "s n"]) -> Bool[Tensor, "s n {length}"]:
    free = length - size + 1
    first: Int[Tensor, "s n"] = (places * free).long().clamp_(max=free - 1)
    offset = torch.arange(length, device=places.device) - first[..., None]
    return (offset >= 0) & (offset < size)


def _score(effects: Iterable[Effects]) -> Score:
    predicted, fallen = (torch.cat(parts).numpy() for parts in zip(*effects, strict=True))
    plain, scaled = infidelities(predicted, fallen)
    return Score({"infidelity": plain, "scaled": scaled})
