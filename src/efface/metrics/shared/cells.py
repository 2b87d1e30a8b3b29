"""Cells of a coarse grid: the network's scores without some of them, and the sum of a map over each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Maps, Targets, TargetScore
from efface.erase.masking import erase, to_float, to_stored
from efface.erase.ranking import for_unit
from efface.metrics.probes import Case, Description, Needs, fill_of
from efface.metrics.probes.tokens import drops_tokens
from efface.metrics.shared.effects import identity_of, image_blocks, one_an_image, reduced, seeds_for
from efface.metrics.shared.subsets import cells
from efface.models.evaluation import evaluating_fast
from efface.models.fewer_tokens import fewer_tokens
from efface.models.memory import at_once, blocks
from efface.models.patch_size import patch_size
from efface.models.scores import scores_of
from efface.plug.call import Call
from efface.store.arrays import read_rows
from efface.store.results import Score

Gone = Bool[Tensor, "s cells"]
"""True for each cell that a draw removes."""
ROUNDING = 1e-6
"""Part of a score's size; a smaller change is rounding."""
_CELL, _PIXELS = "cell_", "pixels_"
_Drawn = Int[Tensor, " rows"]
_Ask = Callable[[Images, Gone, _Drawn], Float[Tensor, "rows k"]]


@dataclass(frozen=True)
class CellSums:
    """The sum of a map over each cell, `cell_0` and on, row by row. NaN for a map whose pixels are all equal.

    `pixels_0` and on are the numbers of pixels of the cells.

    tokens: the cells consist of whole patches of the network.
    """

    grid: int
    post: tuple[Call, ...]
    tokens: bool = False

    needs = Needs(blocks=True)
    map_values = "pixel"
    cost = one_an_image
    identity = identity_of

    def describe(self) -> Description:
        return Description(unit=cell_of(self.grid))

    def __call__(self, case: Case) -> Score:
        return cell_sums(case, self.grid, lambda indices: reduced(case, indices, self.post), tokens=self.tokens)


def cell_sums(case: Case, grid: int, maps_of: Callable[[_Drawn], Maps], *, tokens: bool = False) -> Score:
    """Return the score of `CellSums`. It reports one forward pass for each test image.

    maps_of: function from row numbers of the test images to their maps, after `post`.
    """
    labels, parts = labels_for(case, grid, tokens=tokens), []
    for indices in case.test_rows.split(case.max_batch):
        maps = for_unit(maps_of(indices), "pixel", case.data["test"].shape[0]).flatten(1).double()
        sums = maps.new_zeros(len(maps), grid**2).index_add_(1, labels.flatten(), maps)
        varies = maps.amax(1, keepdim=True) > maps.amin(1, keepdim=True)
        parts.append(torch.where(varies, sums, torch.nan).numpy(force=True))
        case.advance(float(len(indices)))
    sizes = labels.flatten().bincount(minlength=grid**2).expand(len(case.test_rows), -1).double()
    return Score(by_cell(np.concatenate(parts)) | by_cell(sizes.numpy(force=True), _PIXELS))


def by_cell(values: Float[np.ndarray, "n cells"], prefix: str = _CELL) -> dict[str, np.ndarray]:
    """Return the values of a score, one for each cell. `over_cells` is the inverse."""
    return {f"{prefix}{number}": values[:, number] for number in range(values.shape[1])}


def over_cells(score: Score, prefix: str = _CELL) -> Float[np.ndarray, "n cells"]:
    """Return the values of all cells."""
    return np.stack([values for name, values in score.values.items() if name.startswith(prefix)], 1).astype(np.float64)


def for_each_pixel(
    sums: Score, effects: Float[np.ndarray, "n cells"]
) -> tuple[Float[np.ndarray, "n cells"], Float[np.ndarray, "n cells"]]:
    """Return the map's sums and the effects of the cells, each divided by the number of pixels of its cell.

    Cells of one size have the same correlation as before. Where sizes differ, a map of equal noise has no larger number
    in a larger cell.

    sums: of `CellSums`.
    """
    sizes = over_cells(sums, _PIXELS)
    return over_cells(sums) / sizes, effects / sizes


def cell_of(grid: int) -> str:
    """Return the name of the unit for a table."""
    return f"cell of {grid} x {grid}"


def check_grid(where: str, name: str, grid: int, most: int) -> None:
    """Raise ValueError for a grid with fewer than two cells across, or more than `most`."""
    if not 2 <= grid <= most:
        raise ValueError(f"{where}: {name} is {grid}; expected 2 to {most}: change it")


def labels_for(case: Case, grid: int, *, tokens: bool) -> Int[Tensor, "h w"]:
    """Return the cell of each pixel of the test images. With `tokens`, each patch lies in one cell."""
    return cell_labels(case.network, _first(case), grid, tokens=tokens).to(case.device)


def cell_labels(
    network: nn.Module, images: Images, grid: int, *, tokens: bool, setting: str = "grid"
) -> Int[Tensor, "h w"]:
    """Return the cell of each pixel. ValueError: there are more cells than pixels, or patches, across.

    tokens: a patch of the network belongs wholly to the cell in which its middle lies. setting: word of an error for
        the grid.
    """
    h, w = images.shape[2:]
    if not tokens:
        return cells(grid, h, w, setting)
    tall, wide = patch_size(network, images)
    return cells(grid, h // tall, w // wide, setting).repeat_interleave(tall, 0).repeat_interleave(wide, 1)


def scores_without(
    case: Case, network: nn.Module, gone: Gone, *, grid: int, imputer: Call, score: TargetScore, name: str
) -> Float[Tensor, "rows s"]:
    """Return the score of each test image's class for each set of cells that is removed, in float64 on the CPU.

    It reports one forward pass for each image and set.

    imputer: fills the removed cells. A fill that drops tokens drops those of the removed cells instead.
    name: word for the seeds of the fill.
    """
    narrow = replace(case, max_batch=at_once(_first(case), case.max_batch))
    parts = []
    with _asking(case, network, grid, imputer) as ask, torch.no_grad():
        for indices, images, classes in image_blocks(narrow, len(gone), whole=True):
            seeds, some = seeds_for(case, f"{name} fill", indices), []
            for sets in blocks(len(gone), max(1, narrow.max_batch // len(images))):
                numbers = range(*sets.indices(len(gone)))
                drawn = torch.cat([draws.fold(seeds, number) for number in numbers])
                some.append(_scored(ask(images, gone[sets], drawn), classes, score))
            parts.append(torch.cat(some).T)
    return torch.cat(parts)


def _scored(logits: Float[Tensor, "rows k"], classes: Targets, score: TargetScore) -> Float[Tensor, "s n"]:
    scores = scores_of(logits, classes.repeat(len(logits) // len(classes)), score)
    return scores.double().cpu().unflatten(0, (-1, len(classes)))


@contextmanager
def _asking(case: Case, network: nn.Module, grid: int, imputer: Call) -> Iterator[_Ask]:
    """Yield a function (images, sets, seeds) -> logits of all images for the first set, then for the next one."""
    first, tokens = _first(case), drops_tokens(imputer)
    labels = labels_for(case, grid, tokens=tokens)
    with evaluating_fast(network, first) as fast:
        if not tokens:

            def filled(images: Images, gone: Gone, seeds: _Drawn) -> Tensor:
                masks = gone.to(images.device)[:, labels].repeat_interleave(len(images), 0)
                erased = erase(images.repeat(len(gone), 1, 1, 1), masks, fill_of(case, imputer, seeds))
                return fast(to_float(to_stored(erased)))

            yield filled
            return
        tall, wide = patch_size(network, first)
        patches = labels[::tall, ::wide].flatten()
        with fewer_tokens(fast, first) as only:

            def dropped(images: Images, gone: Gone, _seeds: _Drawn) -> Tensor:
                kept = ~gone.to(images.device)[:, patches].repeat_interleave(len(images), 0)
                return only(images.repeat(len(gone), 1, 1, 1), kept)

            yield dropped


def falls(scores: Float[Tensor, "n s"]) -> Float[np.ndarray, "n s-1"]:
    """Return how far the scores fall from the first one. A fall of the size of rounding is 0, so that such falls tie.

    scores: the score of the whole image, then those without parts of it.
    """
    fallen = scores[:, :1] - scores[:, 1:]
    noise = ROUNDING * scores.abs().amax(1, keepdim=True)
    return torch.where(fallen.abs() > noise, fallen, 0).numpy()


def whole_and_singles(grid: int) -> Gone:
    """Return the sets of the whole image, and of the image without each single cell."""
    single = torch.eye(grid**2, dtype=torch.bool)
    return torch.cat([torch.zeros_like(single[:1]), single])


def _first(case: Case) -> Images:
    return to_float(read_rows(case.data["test"].images, case.test_rows[:1]).to(case.device))
