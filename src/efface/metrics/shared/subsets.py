"""Subsets: the map's sum over random parts of an image, and the fall of the score when these parts are erased."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Imputer, Maps, Seeds, Targets, TargetScore
from efface.erase.contract import labels_of
from efface.erase.masking import erase
from efface.erase.ranking import for_unit
from efface.metrics.probes import Case, Description, Needs, fill_of
from efface.metrics.probes.description import COUNT, by_fields
from efface.metrics.shared.effects import (
    falls,
    identity_of,
    image_blocks,
    one_a_sample,
    pearson,
    reduced,
    seeds_for,
    spearman,
)
from efface.plug.call import Call
from efface.store.results import Score

Subset = Bool[Tensor, "s n h w"] | Bool[Tensor, "s n c h w"]
"""True = erased, for each draw and image."""
Sets = Literal["exact", "independent"]
"""exact: each set has that share of the units. independent: each unit is in a set with that probability."""


@dataclass(frozen=True)
class Subsets:
    """The given network on images without random units, and the map's sum over these units.

    fraction: share of the units that each draw erases.
    grid: erase cells of a grid x grid instead of `unit`; 0: erase `unit`.
    sets: how the units of a draw are chosen.
    """

    fraction: float
    samples: int
    grid: int
    score: TargetScore
    imputer: Call
    post: tuple[Call, ...]
    unit: Literal["pixel", "feature"] | Call
    sets: Sets = "exact"

    needs = Needs(blocks=True)
    cost = one_a_sample

    def identity(self) -> dict[str, Any]:
        """Return its fields; `sets` only if it is not the usual one, so that old results keep their keys."""
        identity = identity_of(self)
        if self.sets == "exact":
            del identity["sets"]
        return identity

    def describe(self) -> Description:
        """Return the description. Nothing is ranked, since the units of a set are drawn."""
        count = COUNT if self.sets == "exact" else f"each unit with probability {self.fraction:g}"
        description = replace(by_fields(self), count=count)
        return replace(description, unit=f"cell of {self.grid} x {self.grid}") if self.grid else description

    def check(self, network: nn.Module, images: Images) -> None:  # noqa: ARG002
        """Raise ValueError if the grid has more cells across than the images have pixels."""
        if self.grid:
            cells(self.grid, *images.shape[2:])

    def __call__(self, case: Case) -> Score:
        effects = []
        for indices, images, classes in image_blocks(case, self.samples + 1):
            whole = self.unit != "feature" or self.grid > 0
            maps = for_unit(reduced(case, indices, self.post), "pixel" if whole else "feature", images.shape[1])
            seeds, fills = seeds_for(case, "subsets", indices), seeds_for(case, "subsets fill", indices)
            sums, fallen = subset_effects(
                case.network,
                images,
                classes,
                maps,
                self.subsets(images, seeds),
                [fill_of(case, self.imputer, draws.fold(fills, k)) for k in range(self.samples)],
                score=self.score,
                max_batch=case.max_batch,
            )
            effects.append((sums, fallen))
        given, lost = (torch.cat(parts).numpy() for parts in zip(*effects, strict=True))
        return Score({"pearson": pearson(given, lost), "spearman": spearman(given, lost)})

    def subsets(self, images: Images, seeds: Seeds) -> Subset:
        """Return the mask of what each draw erases."""
        n, c, h, w = images.shape
        if self.unit == "feature" and not self.grid:
            labels = torch.arange(c * h * w, device=images.device).expand(n, -1)
            return self._drawn(labels, seeds).unflatten(2, (c, h, w))
        if self.grid:
            labels = cells(self.grid, h, w).to(images.device).flatten().expand(n, -1)
        elif isinstance(self.unit, Call):
            labels = labels_of(self.unit, images).flatten(1)
        else:
            labels = torch.arange(h * w, device=images.device).expand(n, -1)
        return self._drawn(labels, seeds).unflatten(2, (h, w))

    def _drawn(self, labels: Int[Tensor, "n places"], seeds: Seeds) -> Bool[Tensor, "s n places"]:
        draw = random_subsets if self.sets == "exact" else independent_subsets
        return draw(labels, seeds, self.fraction, self.samples)


def subset_effects(
    network: nn.Module,
    images: Images,
    classes: Targets,
    maps: Maps,
    removed: Subset,
    imputer: Imputer | list[Imputer],
    *,
    score: TargetScore = "logit",
    max_batch: int = 256,
) -> tuple[Float[Tensor, "n s"], Float[Tensor, "n s"]]:
    """Return the map's sum over each subset, and the fall of the score when the subset is erased. Float64, on the CPU.

    maps: with channels if the subsets have channels, otherwise without.
    imputer: one for all subsets, or one for each.
    score: score of the explained class.
    max_batch: images in one pass. It limits the memory.
    """
    if removed.shape[1:] != maps.shape:
        raise ValueError(
            f"subsets of {tuple(removed.shape[1:])} over maps of {tuple(maps.shape)}; give one value to each place "
            "that is erased: efface.erase.ranking.for_unit makes them fit"
        )
    fills = imputer if isinstance(imputer, list) else [imputer] * len(removed)
    exact = maps.double()
    sums = torch.stack([(exact * subset).flatten(1).sum(1) for subset in removed], 1)

    def changed(k: int) -> Images:
        return erase(images, removed[k], fills[k])

    return sums.cpu(), falls(network, images, classes, changed, len(removed), score=score, max_batch=max_batch)


def random_subsets(
    labels: Int[Tensor, "n places"], seeds: Seeds, fraction: float, samples: int
) -> Bool[Tensor, "{samples} n places"]:
    """Return exactly floor(fraction * units + 1e-6) units of each image, drawn independently for each sample.

    labels: unit of each place, from 0.
    """
    units = labels.amax(1, keepdim=True) + 1
    count = torch.floor(fraction * units.double() + 1e-6).long()
    width, subsets = int(units.max()), []
    fewest, most = max(1, int(count.min())), max(1, int(count.max()))
    beyond = torch.arange(width, device=labels.device) >= units
    for k in range(samples):
        keys = draws.keys(draws.fold(seeds, k), width).masked_fill_(beyond, torch.iinfo(torch.int64).max)
        if fewest == most:  # measured: a sixth of the time of a sort
            last = keys.kthvalue(most, 1, keepdim=True).values
        else:
            last = keys.sort(1).values.gather(1, (count - 1).clamp_min(0))
        subsets.append(((keys <= last) & (count > 0)).gather(1, labels))
    return torch.stack(subsets)


def independent_subsets(
    labels: Int[Tensor, "n places"], seeds: Seeds, fraction: float, samples: int
) -> Bool[Tensor, "{samples} n places"]:
    """Return sets that have each unit with probability `fraction`, whatever else they have.

    labels: unit of each place, from 0.
    """
    width = int(labels.max()) + 1
    return torch.stack(
        [(draws.uniform(draws.fold(seeds, k), (width,)) < fraction).gather(1, labels) for k in range(samples)]
    )


def cells(grid: int, h: int, w: int, setting: str = "grid") -> Int[Tensor, "{h} {w}"]:
    """Return the cell of each pixel in a grid x grid: the one in which the middle of the pixel lies.

    So a small image of grid x grid is enlarged by its nearest pixel, as MuFidelity does it. Widths differ by one pixel.

    setting: word of an error for the grid.
    """
    if grid > min(h, w):
        raise ValueError(f"{setting} is {grid}; expected at most the image's {min(h, w)} pixels: lower it")
    down, across = ((2 * torch.arange(size) + 1) * grid // (2 * size) for size in (h, w))
    return down[:, None] * grid + across
