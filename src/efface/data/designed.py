"""Images for the networks of `efface.models.designed`: cells that count, cells that count against, and clutter."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from efface.base.draws import fold, keys, seeds_of, uniform
from efface.base.types import Seeds, Split, StoredImages, Targets
from efface.data.subset import check_counts, splits
from efface.models.designed import CELL, NEEDED, Kind
from efface.models.designed import check_designed as check_network
from efface.plug.facts import states
from efface.plug.shared_settings import with_settings_of

FOR = {"counter": (3, 6), "or": (1, 3), "and": (NEEDED, NEEDED), "contrast": (3, 5)}
"""Fewest and most cells of an image that speak for its class."""
AGAINST = {"counter": (0, 2), "or": (0, 0), "and": (0, NEEDED - 1), "contrast": (0, 2)}
"""Fewest and most cells of the other colour, or of the other contrast."""
BLUE = 5
"""Blue cells of an image, which tell nothing."""
GROUND = 0.45
"""The clutter lies from 0 to this value, below what the networks see."""


@states(is_synthetic=True)
def designed(
    *,
    kind: Kind = "counter",
    size: int = 16,
    n_train: int = 200,
    n_test: int = 200,
    limit: int | None = None,
    test_limit: int | None = None,
    validation: float = 0.0,
    seed: int = 0,
) -> dict[str, Split]:
    """Images of cells, RGB, all of which the network `designed` classifies right. The classes take turns.

    A cell has 2 x 2 pixels. The mask of a split holds the cells that speak for the image's class. The control
    `exact_map` shows the exact contribution of every cell. Image i depends only on the kind, the size, the seed, the
    split and i.

    kind: counter, 3 to 6 cells of the class's colour (red or green) and up to 2 of the other. or, 1 to 3 of the class's
        colour alone. and, 3 of the class's colour, and up to 2 of the other, which are too few. Each image also has 5
        blue cells, and dim noise of all colours. contrast, grey cells of any brightness, of which 3 to 5 are brighter
        on the class's side (left or right), up to 2 are a little brighter on the other, and the rest are even.
    size: height and width in pixels, an even number from 8.
    n_train: number of training images, 2 or more. The networks need none; methods that learn and fills may use them.
    n_test: number of test images, 2 or more.
    limit: number of training images, a balanced choice; None takes all.
    test_limit: number of test images, a balanced choice; None takes all.
    validation: share of the training images that is held out, stratified, in [0, 1).
    seed: seeds the images, both choices and the validation images.

    Source: Zhang et al. 2023, AttributionLab (arXiv:2310.06514): drawn data for networks designed by hand.
    Differs: the images are ours.
    """
    check_designed(kind, size, n_train=n_train, n_test=n_test)
    made = {}
    for name, count in (("train", n_train), ("test", n_test)):
        targets = torch.arange(count) % 2
        seeds = seeds_of(f"designed {kind} {size} {seed} {name}", torch.arange(count))
        images, masks = _drawn(seeds, targets, kind, size)
        made[name] = Split(images, targets, ("left", "right") if kind == "contrast" else ("red", "green"), masks)
    return splits(**made, limit=limit, test_limit=test_limit, validation=validation, seed=seed)


@with_settings_of(designed, but=("seed",))
def check_designed(kind: str = "counter", size: int = 16, **counts: Any) -> None:
    """Raise ValueError for kinds and sizes that the network does not have, and for numbers of images that cannot be."""
    check_network(kind, size)
    check_counts(2, **counts)


def _drawn(seeds: Seeds, targets: Targets, kind: Kind, size: int) -> tuple[StoredImages, Bool[Tensor, "n h w"]]:
    across = size // CELL
    place = keys(fold(seeds, 0), across**2).argsort(1).argsort(1)  # the first cells of a shuffle get a role
    numbers = uniform(fold(seeds, 1), (2,))
    own, other = (_between(numbers[:, i], *of[kind]) for i, of in enumerate((FOR, AGAINST)))
    ends = torch.stack([torch.zeros_like(own), own, own + other, own + other + BLUE], 1)[:, :, None]
    of_cells = (place[:, None] >= ends[:, :-1]) & (place[:, None] < ends[:, 1:])
    roles = of_cells.unflatten(2, (across, across)).repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)
    speaks, opposes, blue = roles.unbind(1)
    if kind == "contrast":
        images = _contrasts(fold(seeds, 2), targets, speaks, opposes)
    else:
        images = _colours(fold(seeds, 2), targets, speaks, opposes, blue)
    return images.mul(255).round().to(torch.uint8), speaks


def _between(number: Float[Tensor, " n"], fewest: int, most: int) -> Int[Tensor, " n"]:
    """Return whole numbers from the fewest to the most, evenly. number: in [0, 1)."""
    return fewest + (number * (most - fewest + 1)).long()


def _colours(
    seeds: Seeds,
    targets: Targets,
    speaks: Bool[Tensor, "n h w"],
    opposes: Bool[Tensor, "n h w"],
    blue: Bool[Tensor, "n h w"],
) -> Float[Tensor, "n 3 h w"]:
    """Return bright cells on dim noise: of the class's colour, of the other one, and blue."""
    numbers = uniform(seeds, (2, 3, *speaks.shape[1:]))
    images, bright = GROUND * numbers[:, 0], 0.8 + 0.2 * numbers[:, 1]
    red = torch.where((targets == 0)[:, None, None], speaks, opposes)
    green = torch.where((targets == 0)[:, None, None], opposes, speaks)
    return torch.where(torch.stack([red, green, blue], 1), bright, images)


def _contrasts(
    seeds: Seeds,
    targets: Targets,
    speaks: Bool[Tensor, "n h w"],
    opposes: Bool[Tensor, "n h w"],
) -> Float[Tensor, "n 3 h w"]:
    """Return grey cells of any brightness. The left pixels of a cell are brighter than the right ones, or darker.

    The differences are 0.6 to 0.9 where the cell speaks for the class, 0.25 to 0.4 where it opposes, else up to 0.1.
    """
    n, h, w = speaks.shape
    numbers = uniform(seeds, (2, h // CELL, w // CELL))
    numbers = numbers.repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)
    sign = (1 - 2 * targets)[:, None, None].float()
    even = 0.2 * numbers[:, 0] - 0.1
    difference = torch.where(speaks, sign * (0.6 + 0.3 * numbers[:, 0]), even)
    difference = torch.where(opposes, -sign * (0.25 + 0.15 * numbers[:, 0]), difference)
    middle = difference.abs() / 2 + numbers[:, 1] * (1 - difference.abs())
    side = torch.tensor([0.5, -0.5]).repeat(w // CELL)
    return (middle + side * difference)[:, None].expand(n, 3, h, w)
