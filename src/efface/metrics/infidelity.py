"""Infidelity: how far what a map predicts for a change of the image is from what the change does."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from efface import draws
from efface.erase.ranking import for_unit
from efface.metrics.formula import Metric, Point
from efface.metrics.probes import Case, Description, Needs, fill_of
from efface.metrics.probes.description import by_fields
from efface.metrics.shared.effects import falls, identity_of, image_blocks, one_a_sample, positive, reduced, seeds_for
from efface.metrics.shared.subsets import subset_effects
from efface.plug.call import Call
from efface.store.results import Score
from efface.types import Images, Seeds, Targets, TargetScore


def infidelity(
    *,
    perturbation: Literal["square", "noise"] = "square",
    samples: int = 100,
    size: int = 8,
    noise: float = 0.2,
    score: TargetScore = "logit",
) -> Metric:
    """Mean square of (what the map predicts for a change) - (the fall of the score under it), over random changes.

    `square`: a square of the image is filled (`imputer`); the map predicts its sum over the square, as a map of
    contributions does (gradient x input, integrated gradients, LRP, a CAM). `noise`: Gaussian noise I is subtracted;
    the map predicts the sum of I times the map, as a gradient does. The other kind of map is wrong by its kind.

    `infidelity` is the mean as it is, in the score's squared units: it changes with the map's scale. `scaled`
    multiplies the map first by the one number of each image that makes it least: between 0 and the mean square of the
    falls, which is what a map of zeros gets. 0 for a map that is exact, on a network that adds contributions up.

    The map is signed, of single features where the method gives them; `post` may change it.

    perturbation: square, or noise, which reads no `imputer`.
    samples: changes of an image, at least 1; each costs one forward pass.
    size: pixels across the square, at most the image's. noise: standard deviation, above 0, in units of [0, 1].
    score: the score, of the class explained: logit, log_probability, probability or loss (cross entropy).

    Source: Yeh, Hsieh, Suggala, Inouye & Ravikumar 2019 (arXiv:1901.09392); the optimal
        scale from their released code.
    Differs: a square has one size; the scale is found for every map, also where a map says it needs none.
    """
    positive("infidelity", samples=samples, size=size, noise=noise)

    def probes(point: Point) -> dict[str, Any]:
        if perturbation == "noise":
            return {"changes": Noise(samples, noise, score, point.post)}
        return {"changes": Squares(samples, size, score, point.imputer, point.post)}

    return Metric(
        probes=probes,
        value=lambda scores: {name: scores["changes"].values[name] for name in ("scaled", "infidelity")},
        direction={"scaled": "lower", "infidelity": "lower"},
        sample="images",
        uses=frozenset({"post"}) if perturbation == "noise" else frozenset({"imputer", "post"}),
        caption="Random squares of the image are filled, or noise is subtracted. A truthful map predicts how far the "
        "score falls; what is shown is the mean square of its error, once the map is scaled as well as can be.",
        family="faithfulness",
        defaults={"post": []} | ({} if perturbation == "noise" else {"imputer": "efface.impute.channel_mean"}),
        axis="",
        points_for=lambda _: (0.0,),
    )


@dataclass(frozen=True)
class Squares:
    """The given network on images with a random square filled, and what the map gives to the square."""

    samples: int
    size: int
    score: TargetScore
    imputer: Call
    post: tuple[Call, ...]

    needs = Needs()
    cost = one_a_sample
    identity = identity_of

    def describe(self) -> Description:
        return replace(by_fields(self), unit=f"square of {self.size} x {self.size} pixels", count="1")

    def check(self, network: nn.Module, images: Images) -> None:  # noqa: ARG002
        """ValueError: the square is larger than the images."""
        squares(images.shape[2], images.shape[3], self.size, torch.zeros(1, 1, 2))

    def __call__(self, case: Case) -> Score:
        found = []
        for rows, images, classes in image_blocks(case, self.samples + 1):
            maps = reduced(case, rows, self.post)
            maps = maps.sum(1) if maps.ndim == 4 else maps
            places = corners(seeds_for(case, "squares", rows), self.samples)
            removed = squares(images.shape[2], images.shape[3], self.size, places)
            seeds = seeds_for(case, "squares fill", rows)
            fills = [fill_of(case, self.imputer, draws.fold(seeds, k)) for k in range(self.samples)]
            found.append(
                subset_effects(
                    case.network, images, classes, maps, removed, fills, score=self.score, max_batch=case.max_batch
                )
            )
        return _score(found)


@dataclass(frozen=True)
class Noise:
    """The given network on noisy images, and what the map predicts for the noise."""

    samples: int
    noise: float
    score: TargetScore
    post: tuple[Call, ...]

    needs = Needs()
    cost = one_a_sample
    identity = identity_of
    map_values = "feature"

    def __call__(self, case: Case) -> Score:
        found = []
        for rows, images, classes in image_blocks(case, self.samples + 1):
            maps = for_unit(reduced(case, rows, self.post), "feature", images.shape[1])
            seeds, shape = seeds_for(case, "infidelity noise", rows), tuple(images.shape[1:])
            steps = torch.stack([draws.normal(draws.fold(seeds, k), shape) for k in range(self.samples)])
            found.append(
                noise_effects(
                    case.network, images, classes, maps, steps * self.noise, score=self.score, max_batch=case.max_batch
                )
            )
        return _score(found)


def noise_effects(
    network: nn.Module,
    images: Images,
    classes: Targets,
    maps: Images,
    steps: Float[Tensor, "s n c h w"],
    *,
    score: TargetScore = "logit",
    max_batch: int = 256,
) -> tuple[Float[Tensor, "n s"], Float[Tensor, "n s"]]:
    """Of each image and step: the map times the step, summed, and the fall of the score at image - step; float64, CPU.

    score: the score, of the class explained. max_batch: images in one pass; bounds the memory.
    """
    products = torch.stack([(each.double() * maps).flatten(1).sum(1) for each in steps], 1)
    fallen = falls(network, images, classes, lambda k: images - steps[k], len(steps), score=score, max_batch=max_batch)
    return products.cpu(), fallen


def infidelities(
    predicted: Float[np.ndarray, "n s"], fallen: Float[np.ndarray, "n s"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Mean square error of the predictions as they are, and after the scale of each row that makes it least."""
    energy, products = (predicted**2).mean(1), (predicted * fallen).mean(1)
    scale = np.divide(products, energy, out=np.zeros_like(products), where=energy > 0)
    scaled = ((scale[:, None] * predicted - fallen) ** 2).mean(1)
    return ((predicted - fallen) ** 2).mean(1), scaled


def corners(seeds: Seeds, samples: int) -> Float[Tensor, "{samples} n 2"]:
    """Where squares lie, from 0 (top, left) to 1 (as far down or right as they fit)."""
    return torch.stack([draws.uniform(draws.fold(seeds, k), (2,)) for k in range(samples)])


def squares(h: int, w: int, size: int, places: Float[Tensor, "s n 2"]) -> Bool[Tensor, "s n {h} {w}"]:
    """True in the square of each place."""
    if size > min(h, w):
        raise ValueError(f"infidelity: size is {size}; expected at most the image's {min(h, w)} pixels: lower it")
    down, across = _span(h, size, places[..., 0]), _span(w, size, places[..., 1])
    return down[..., :, None] & across[..., None, :]


def _span(length: int, size: int, places: Float[Tensor, "s n"]) -> Bool[Tensor, "s n {length}"]:
    free = length - size + 1
    first: Int[Tensor, "s n"] = (places * free).long().clamp_(max=free - 1)
    offset = torch.arange(length, device=places.device) - first[..., None]
    return (offset >= 0) & (offset < size)


def _score(found: list[tuple[Tensor, Tensor]]) -> Score:
    predicted, fallen = (torch.cat(each).numpy() for each in zip(*found, strict=True))
    plain, scaled = infidelities(predicted, fallen)
    return Score({"infidelity": plain, "scaled": scaled})
