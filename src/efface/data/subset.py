"""Random choice of a part of a data set. A seed gives the same rows on every machine and with every library version."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from efface.base.draws import keys, seeds_of
from efface.base.types import Split, Targets
from efface.plug.shared_settings import with_settings_of
from efface.store.arrays import read_rows

Interpolation = Literal["bilinear", "bicubic"]
"""How images are resized, always antialiased."""


def splits(
    train: Split, test: Split, *, limit: int | None, test_limit: int | None, validation: float, seed: int
) -> dict[str, Split]:
    """Cut both splits down to their limits, then hold out a part of the training rows for validation."""
    train = _cut(train, chosen_rows("train", train.targets, len(train.classes), limit, seed))
    test = _cut(test, chosen_rows("test", test.targets, 1, test_limit, seed))
    return {"train": replace(train, validation=stratified(train.targets, validation, seed)), "test": test}


class Chosen(NamedTuple):
    """Rows of a split, and which of them are held out for validation. name: of the choice, in the name of a file."""

    rows: Int[Tensor, " m"]
    validation: Int[Tensor, " v"] | None
    name: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How many images of a data set are taken, and how many of them are held out for validation.

    limit: number of training images, a balanced choice; None takes all.
    test_limit: number of test images, a balanced choice; None takes all.
    validation: share of the training images that is held out, stratified, in [0, 1).
    seed: seeds both choices and the validation images.
    """

    limit: int | None = None
    test_limit: int | None = None
    validation: float = 0.0
    seed: int = 0

    def counts(self) -> dict[str, Any]:
        """Return the settings without the seed, as `check_choice` takes them."""
        return {name: value for name, value in asdict(self).items() if name != "seed"}

    def of(self, split: str, targets: Targets, classes: int) -> Chosen:
        """Return what is taken of a split. The arguments are those of `chosen_rows`."""
        rows = chosen_rows(split, targets, classes, self.limit if split == "train" else self.test_limit, self.seed)
        held_out = stratified(targets[rows], self.validation, self.seed) if split == "train" else None
        return Chosen(rows, held_out, "all" if len(rows) == len(targets) else f"{len(rows)}-seed{self.seed}")


def chosen_rows(split: str, targets: Targets, classes: int, limit: int | None, seed: int) -> Int[Tensor, " m"]:
    """Return ascending row numbers of a balanced choice from a split.

    split: `train`, whose choice has an image of each class, or `test`.
    classes: number of classes of the training split.
    limit: number of rows; None takes all.
    """
    if split == "train":
        return balanced(targets, limit, seed, setting="limit", least=classes)
    return balanced(targets, limit, seed, setting="test_limit")


def resized(
    found: Mapping[str, Split], size: int | None, interpolation: Interpolation = "bilinear"
) -> dict[str, Split]:
    """Return images without masks as squares, in memory: antialiased, 8 bits.

    size: height and width in pixels, at least 1; None: no resizing.
    """
    if size is None:
        return dict(found)
    if size < 1:
        raise ValueError(f"size: {size}, expected at least 1 pixel, or null for no resizing; change it")
    made = {}
    for name, split in found.items():
        assert split.masks is None
        images = torch.empty(len(split), split.shape[0], size, size, dtype=torch.uint8)
        for indices in torch.arange(len(split)).split(256):
            part = read_rows(split.images, indices).float()
            if interpolation == "bicubic":  # Pillow cuts what lies outside [0, 255] after each direction, width first
                part = F.interpolate(part, (part.shape[2], size), mode=interpolation, antialias=True).clamp_(0, 255)
            part = F.interpolate(part, (size, size), mode=interpolation, antialias=True)
            images[indices] = part.round_().clamp_(0, 255).byte()
        made[name] = replace(split, images=images)
    return made


def check_choice(
    *, size: int | None = None, limit: int | None = None, test_limit: int | None = None, validation: float = 0.0
) -> None:
    """Raise ValueError for settings that no data set can meet. A `check_NAME` of several data sets is this function."""
    for setting, number, what in (
        ("size", size, "1 pixel"),
        ("limit", limit, "1 image"),
        ("test_limit", test_limit, "1 image"),
    ):
        if number is not None and number < 1:
            raise ValueError(f"{setting}: {number}, expected at least {what}; change it")
    if not 0 <= validation < 1:
        raise ValueError(f"validation: {validation}, expected a share of the training images in [0, 1); change it")


@with_settings_of(check_choice, but=("size",))
def check_counts(classes: int, *, n_train: int, n_test: int, **choice: Any) -> None:
    """Raise ValueError for numbers of drawn images, whose classes take turns, that cannot be."""
    for name, count in (("train", n_train), ("test", n_test)):
        if count < classes:
            raise ValueError(f"n_{name}: {count}, expected {classes} (one image of each class) or more; change it")
    check_choice(**choice)


def balanced(targets: Targets, limit: int | None, seed: int, *, setting: str, least: int = 1) -> Int[Tensor, " m"]:
    """Return ascending row numbers of `limit` rows, spread over the classes as evenly as the class sizes allow.

    The rows of a smaller limit are a subset of the rows of a larger one.

    limit: number of rows; None takes all.
    setting: name of the limit in the study.
    least: smallest valid limit; for training rows the number of classes.
    """
    if limit is None:
        return torch.arange(len(targets))
    if not least <= limit <= len(targets):
        why = "one image of each class" if least > 1 else "one image"
        raise ValueError(f"{setting}: {limit}, expected {least} ({why}) to {len(targets)} (all there are); change it")
    turns, _ = _turns(targets, seed, setting)
    return _first(turns, targets, limit, seed, setting)


def stratified(targets: Targets, part: float, seed: int, *, setting: str = "validation") -> Int[Tensor, " m"] | None:
    """Return ascending row numbers of `round(part * n)` rows with every class in proportion; None if `part` is 0.

    part: share of the rows, in [0, 1).
    setting: name of the part in the study; each name has its own random numbers.
    """
    if part == 0.0:
        return None
    count = round(part * len(targets))
    if not 0 < count < len(targets):
        raise ValueError(
            f"{setting}: {part} of {len(targets)} images is {count}, expected at least one and not all; change it"
        )
    turns, sizes = _turns(targets, seed, setting)
    return _first((turns + 0.5) / sizes, targets, count, seed, setting)


def _turns(targets: Targets, seed: int, setting: str) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return the shuffled position (0, 1, ...) of each row in its class, and the size of its class."""
    shuffled = _shuffle(len(targets), f"rows {setting} {seed}")
    grouped = shuffled[targets[shuffled].argsort(stable=True)]
    sizes = targets.bincount()
    starts = sizes.cumsum(0) - sizes
    turns = torch.empty(len(targets), dtype=torch.float64)
    turns[grouped] = (torch.arange(len(targets)) - starts[targets[grouped]]).double()
    return turns, sizes[targets].double()


def _first(turns: Float[Tensor, " n"], targets: Targets, count: int, seed: int, setting: str) -> Int[Tensor, " m"]:
    """Return the rows with the lowest turns. For equal turns, the classes follow in a shuffled order."""
    lots = _shuffle(int(targets.max()) + 1, f"classes {setting} {seed}")
    by_lot = lots[targets].argsort(stable=True)
    return by_lot[turns[by_lot].argsort(stable=True)][:count].sort().values


def _shuffle(count: int, purpose: str) -> Int[Tensor, " m"]:
    return keys(seeds_of(purpose, torch.arange(count)), 1).flatten().argsort(stable=True)


def _cut(split: Split, chosen: Int[Tensor, " m"]) -> Split:
    if len(chosen) == len(split):
        return split
    masks = None if split.masks is None else split.masks[chosen]
    return replace(split, images=read_rows(split.images, chosen), targets=split.targets[chosen], masks=masks)
