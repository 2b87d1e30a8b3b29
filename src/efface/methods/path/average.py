"""Average over the paths from several references to the image, and its re-calibration."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base import draws
from efface.base.shown import shown
from efface.base.types import Images, Seeds, Target, TargetScore
from efface.methods.gradients import gradients_at
from efface.methods.noise import needed
from efface.methods.path.grid import Grid
from efface.models.evaluation import Precision, evaluating_fast
from efface.models.memory import at_least_one

Recalibrate = Literal["none", "references", "points"]
"""Terms over which the average of several paths is taken, for each element of the map separately.

none: all paths.
references: paths on which the element's contribution, gradient times way, is not below zero.
points: points of all paths at which this contribution is not below zero. Here the way is the remaining way, from the
    point to the image.

Re-calibrated maps are never negative. Terms of 0 are kept. An element without kept terms is 0.

Source: Yang, Akhtar, Wen, Shah & Mian, ICLR 2023, "Re-calibrating feature attributions for model interpretation".
"""
References = Float[Tensor, "n r c h w"]
"""Images at which the paths of each image begin."""
Draw = Callable[[slice, int], Images]
"""(block of images, number of the reference) -> reference of each image."""


@dataclass(frozen=True)
class Drawn:
    """References of each image.

    reference: function that returns a reference by its number.
    count: number of references of each image.
    """

    reference: Draw
    count: int


class Kept:
    """Sum and number of the kept terms, elementwise."""

    def __init__(self, images: Images, recalibrate: Recalibrate) -> None:
        self.every = recalibrate == "none"
        self.total, self.number = torch.zeros_like(images), torch.zeros_like(images)

    def add(
        self,
        block: slice,
        signed: Float[Tensor, "s n c h w"],
        values: Float[Tensor, "s n c h w"] | None = None,
        weights: Float[Tensor, "s n 1 1 1"] | None = None,
    ) -> None:
        """Add the terms of a block of images.

        signed: the terms. Their sign decides which of them are kept.
        values: values to add up in place of the terms.
        weights: weight of each term; 1 by default.
        """
        kept = torch.ones_like(signed) if self.every else (signed >= 0).to(signed.dtype)
        if weights is not None:
            kept *= weights
        self.total[block] += (kept * (signed if values is None else values)).sum(0)
        self.number[block] += kept.sum(0)

    def average(self) -> Images:
        """Return the average of the kept terms; 0 where there are none."""
        return self.total / torch.where(self.number > 0, self.number, 1.0)


def average_over_paths(
    model: nn.Module,
    images: Images,
    targets: Target,
    drawn: Drawn,
    grid: Grid,
    recalibrate: Recalibrate,
    *,
    squared: bool = False,
    densities: Float[Tensor, "n r"] | None = None,
    score: TargetScore,
    precision: Precision = "fp32",
    max_batch: int,
) -> Images:
    """Return the mean over the references of way times mean gradient; re-calibrated, the mean of the kept terms.

    Every point of the grid is used with every reference. It needs memory for a few copies of the images, and for the
    references of one pass.

    drawn: references of each image.
    grid: points of the paths, and their weights.
    squared: use the square of the mean gradient; re-calibrated, the mean of the squares of the kept terms.
    densities: weights of the references of each image; by default equal.
    """
    check_recalibrate(recalibrate)
    if isinstance(grid.alphas, Tensor):
        given, expected = tuple(grid.alphas.shape[:2]), (len(images), drawn.count)
        if given != expected:
            raise ValueError(
                f"alphas are given for {given[0]} images of {given[1]} references; expected {expected[0]} of "
                f"{expected[1]}, as n r p, or one row of points for all"
            )
        grid = replace(grid, alphas=grid.alphas.to(images))
    gradients = drawn.count * len(grid.weights)
    with evaluating_fast(model, images, precision=precision, gradients=gradients) as network:
        kept = Kept(images, recalibrate)
        slope = images
        for block, number, step, way, gradient in _along(network, images, targets, drawn, grid, score, max_batch):
            weights = None if densities is None else densities[None, block, number, None, None, None].to(images)
            gradient = gradient * grid.weights[step]
            if recalibrate == "points":
                terms = ((1 - grid.alpha(block, number, step)) * way * gradient)[None]
                kept.add(block, terms, terms.square() if squared else None, weights)
                continue
            slope = gradient if step == 0 else slope.add_(gradient)
            if step < len(grid.weights) - 1:
                continue
            terms = (way * slope)[None]
            if recalibrate == "references":
                kept.add(block, terms, terms.square() if squared else None, weights)
            else:
                kept.add(block, (way * slope.square())[None] if squared else terms, None, weights)
        return kept.average()


def references_of(
    images: Images,
    given: References | None,
    samples: int,
    seeds: Seeds | None,
    draw: Callable[[Images, Seeds], Images],
) -> Drawn:
    """Return the given references, or `samples` drawn references for each image."""
    if given is not None:
        return given_references(images, given)
    at_least_one("samples", samples)
    own = needed(seeds, images, "the references themselves")
    return Drawn(lambda block, number: draw(images[block], draws.fold(own[block], number)), samples)


def given_references(images: Images, given: References) -> Drawn:
    """Return the given references, after a check of their shape."""
    n, c, h, w = images.shape
    if given.shape[0] != n or given.shape[2:] != (c, h, w):
        raise ValueError(f"references have shape {tuple(given.shape)}; expected ({n}, r, {c}, {h}, {w})")
    at_least_one("the number of references", given.shape[1])
    return Drawn(lambda block, number: given[block, number].detach().to(images), given.shape[1])


def check_recalibrate(recalibrate: str) -> None:
    """Raise ValueError if the word names no re-calibration."""
    if recalibrate not in get_args(Recalibrate):
        raise ValueError(f"recalibrate is {shown(recalibrate)}; expected {', '.join(get_args(Recalibrate))}")


def _along(
    model: nn.Module, images: Images, targets: Target, drawn: Drawn, grid: Grid, score: TargetScore, max_batch: int
) -> Iterator[tuple[slice, int, int, Images, Images]]:
    """Yield (block, reference, step, way, gradient) at every point of every path, path after path.

    If all paths end at the image itself, the gradient there is computed once.
    """
    reference, count, steps = drawn.reference, drawn.count, len(grid.weights)
    shared = int(grid.ends_at_image)
    inner = steps - shared
    ways: dict[int, Images] = {}  # ways from the references of the current pass

    def point(block: slice, number: int) -> Images:
        if number < shared:
            return images[block]
        at, step = divmod(number - shared, inner)
        if at not in ways:
            ways[at] = images[block] - reference(block, at)
        return images[block] - ways[at] * (1 - grid.alpha(block, at, step))

    last = images
    for block, first, gradients in gradients_at(
        model, point, targets, count=shared + count * inner, max_batch=max_batch, score=score
    ):
        for number, gradient in enumerate(gradients, first - shared):
            if number < 0:
                last = gradient.clone()  # a view would keep the gradients of the whole pass in memory
                if inner == 0:
                    yield from ((block, at, 0, images[block] - reference(block, at), last) for at in range(count))
                continue
            at, step = divmod(number, inner)
            yield block, at, step, ways[at], gradient
            if step == inner - 1:
                if shared:
                    yield block, at, steps - 1, ways[at], last
                del ways[at]
