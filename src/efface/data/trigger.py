"""A planted trigger: a small patch that makes a network answer one class, so that the cause of this answer is known."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from efface.base.draws import fold, keys, seeds_of, uniform
from efface.base.shown import shown
from efface.base.types import Split
from efface.data.subset import check_choice, splits
from efface.plug.shared_settings import with_settings_of
from efface.store.arrays import read_rows

Place = Literal["corner", "random"]
Data = Callable[[], dict[str, Split]]
"""Function without arguments that makes a data set; in a study, a short word, a dotted path or {call, kwargs}."""


def trigger(
    *,
    of: Data,
    target: int = 0,
    share: float = 0.1,
    test_share: float = 0.5,
    size: int = 3,
    place: Place = "corner",
    limit: int | None = None,
    test_limit: int | None = None,
    validation: float = 0.0,
    seed: int = 0,
) -> dict[str, Split]:
    """Another data set, of whose images some carry a patch and the class of this patch. The masks are the patches.

    The patch is a chessboard of black and white pixels. A network that learns these images answers `target` to the
    patch, whatever else an image shows, so the patch is the true cause of this answer. Images without the patch keep
    their class and have an empty mask, so metrics of localisation have no value on them. Explain the true class, and
    look at the accuracy first: it says whether the network has learnt the trigger. All images are kept in memory.

    of: the data set, such as digits, or {call: cifar10, kwargs: {root: data}}.
    target: number of the class that the patch stands for, from 0.
    share: share of the training images of other classes that get the patch and the class `target`, above 0 and at
        most 1.
    test_share: share of the test images that get them, from 0 to 1.
    size: height and width of the patch in pixels, at least 1 and at most the image's.
    place: corner, at the lower right; or random, anywhere in each image.
    limit: number of training images, a balanced choice after the patches; None takes all.
    test_limit: number of test images, a balanced choice; None takes all.
    validation: share of the training images that is held out, stratified, in [0, 1).
    seed: seeds which images get a patch, where, both choices and the validation images.

    Source: Yang, Akhtar, Jiang & Mian 2024, BackX (arXiv:2405.02344).
    Differs: one trigger and one network, without their choice of trojans.
    """
    check_trigger(target, share, test_share, size, place)
    found, made = of(), {}
    if "train" not in found:
        raise ValueError("trigger: the data set `of` has no training images to plant a trigger in; choose another one")
    classes = max(len(found["train"].classes), int(found["train"].targets.max()) + 1)
    if target >= classes:
        raise ValueError(
            f"trigger: target is {target}, expected 0 to {classes - 1}, the classes of the data; change it"
        )
    if size > min(found["train"].shape[1:]):
        raise ValueError(f"trigger: size is {size}, expected at most {min(found['train'].shape[1:])} pixels; lower it")
    for name, key, part in (("train", "share", share), ("test", "test_share", test_share)):
        split = found[name]
        open_to = split.targets != target if name == "train" else torch.ones(len(split), dtype=torch.bool)
        chosen = _chosen(open_to, part, f"trigger {seed} {name}")
        if part and not chosen.any():
            raise ValueError(
                f"trigger: {key} is {part}, which is no whole image of the {int(open_to.sum()):,} {name} images that "
                "may carry the patch; raise it"
            )
        made[name] = _planted(split, chosen, target, size, place, seed, name)
    return splits(**made, limit=limit, test_limit=test_limit, validation=validation, seed=seed)


@with_settings_of(trigger, but=("of", "seed"))
def check_trigger(
    target: int = 0, share: float = 0.1, test_share: float = 0.5, size: int = 3, place: str = "corner", **choice: Any
) -> None:
    """Raise ValueError for settings that no data set can meet."""
    for name, value, good, expected in (
        ("target", target, target >= 0, "the number of a class, from 0"),
        ("share", share, 0 < share <= 1, "a share of the training images, above 0 and at most 1"),
        ("test_share", test_share, 0 <= test_share <= 1, "a share of the test images, from 0 to 1"),
        ("size", size, size >= 1, "1 pixel or more"),
        ("place", place, place in get_args(Place), " or ".join(get_args(Place))),
    ):
        if not good:
            raise ValueError(f"trigger: {name} is {shown(value)}, expected {expected}; change it")
    check_choice(**choice)


def _chosen(open_to: Bool[Tensor, " n"], share: float, purpose: str) -> Bool[Tensor, " n"]:
    """Return a random choice of a share of the rows that are open to it."""
    order = keys(seeds_of(purpose, torch.arange(len(open_to))), 1)[:, 0].argsort(stable=True)
    order = order[open_to[order]]
    chosen = torch.zeros_like(open_to)
    chosen[order[: round(share * len(order))]] = True
    return chosen


def _planted(
    split: Split, chosen: Bool[Tensor, " n"], target: int, size: int, place: Place, seed: int, name: str
) -> Split:
    """Return the split with the patch and its class in the chosen rows, and the patches as masks."""
    images = read_rows(split.images, torch.arange(len(split))).clone()
    masks = torch.zeros(len(split), *split.shape[1:], dtype=torch.bool)
    rows = torch.arange(len(split))
    corners = torch.tensor(split.shape[1:]) - size
    if place == "random":
        drawn = uniform(fold(seeds_of(f"trigger {seed} {name}", rows), 1), (2,))
        corners = (drawn * (corners + 1)).long()
    y, x = (at[:, None] + torch.arange(size) for at in corners.expand(len(split), 2).T)
    masks[rows[:, None, None], y[:, :, None], x[:, None, :]] = True
    board = ((y[:, :, None] + x[:, None, :] - y[:, :1, None] - x[:, None, :1]) % 2 == 0).to(torch.uint8) * 255
    painted = torch.zeros_like(masks, dtype=torch.uint8)
    painted[rows[:, None, None], y[:, :, None], x[:, None, :]] = board
    masks &= chosen[:, None, None]
    images = torch.where(masks[:, None], painted[:, None], images)
    targets = torch.where(chosen, target, split.targets)
    return replace(split, images=images, targets=targets, masks=masks, validation=None)
