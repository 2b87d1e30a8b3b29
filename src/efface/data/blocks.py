"""Images of two blocks, one above the other: a digit, which shows the class, and a patch that never changes."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from efface.base.draws import fold, seeds_of, uniform
from efface.base.shown import shown
from efface.base.types import Seeds, Split, StoredImages, Targets
from efface.data.digits import digits
from efface.data.subset import balanced, stratified
from efface.data.vision import mnist
from efface.plug.facts import states
from efface.store.arrays import read_rows

Source = Literal["digits", "mnist"]
Position = Literal["random", "top"]
Null = Literal["square", "blank"]

BLOCK = 28
"""Height and width of a block in pixels."""
INNER = 20
"""Height and width of the box in the middle of a block that holds the digit or the square, as in MNIST."""
COPIES, SHIFT = {"digits": 8, "mnist": 1}, {"digits": 2, "mnist": 0}
"""Copies of each training digit, and its largest shift in pixels: 259 digits of two classes are few for a training."""


@states(is_synthetic=True)
def blocks(
    *,
    source: Source = "digits",
    classes: Sequence[int] = (0, 1),
    position: Position = "random",
    null: Null = "square",
    copies: int | None = None,
    shift: int | None = None,
    root: str = "data",
    download: bool = True,
    limit: int | None = None,
    test_limit: int | None = None,
    validation: float = 0.0,
    seed: int = 0,
) -> dict[str, Split]:
    """Images of a digit's block above or below a null block, 56x28, grey. The mask of a split is the digit's block.

    The null block (`null_block`) is the same in every image. A fair coin that does not depend on the class decides its
    position. Relevance in the null block is therefore leaked. The null block covers half of the image, so a random map
    has half of its relevance there.

    source: digits or mnist. digits: the 8x8 digits of scikit-learn, enlarged to 20x20. They need no download; two
        classes have about 260 training and 100 test images. mnist: unchanged (about 12,700 and 2,100).
    classes: the digits to classify, two or more of 0 to 9. Targets count them in this order.
    position: position of the digit's block. random: above or below, each with probability 1/2; top: always above.
    null: content of the null block. square: a hollow square with its diagonals; blank: nothing, to measure the effect
        of the patch.
    copies: number of images of each training digit, each with its own shift and position; None: 8 for digits, 1 for
        mnist. Each test digit is shown once, so that test images are independent.
    shift: largest shift of a digit in its block, up, down and sideways, 0 to 4 pixels; None: 2 for digits, 0 for
        mnist.
    root: folder of `MNIST/raw`, existing or new.
    download: True to download MNIST's archives if the folder does not hold them yet.
    limit: number of training images, a balanced choice; None takes all.
    test_limit: number of test images, a balanced choice; None takes all.
    validation: share of the training digits that is held out with all their copies, stratified, in [0, 1).
    seed: seeds positions, shifts, both choices and the validation digits.

    Source: Shah, Jain & Netrapalli 2021, section 5 (arXiv:2102.12781): BlockMNIST, and BlockMNIST-Top for
        `position: top`.
    Differs: the null patch's bitmap is ours, after the paper's description; `digits` and `copies` are ours.
    """
    check_blocks(source=source, position=position, null=null)
    times = COPIES[source] if copies is None else copies
    reach = SHIFT[source] if shift is None else shift
    if len({*classes}) < 2 or len({*classes}) < len(classes) or not {*classes} <= {*range(10)}:
        raise ValueError(f"blocks: classes are {list(classes)}, expected two or more different digits of 0 to 9")
    if times < 1:
        raise ValueError(f"blocks: copies is {copies}, expected 1 or more; raise it")
    if not 0 <= reach <= (BLOCK - INNER) // 2:
        raise ValueError(f"blocks: shift is {shift}, expected 0 to {(BLOCK - INNER) // 2} pixels; change it")
    known = digits() if source == "digits" else mnist(root=root, download=download)
    made = {}
    for name, whole in known.items():
        drawn, targets = _of_classes(whole, classes)
        shown = torch.arange(len(targets)).repeat(times if name == "train" else 1)
        seeds = seeds_of(f"blocks {seed} {name}", torch.arange(len(shown)))
        stacked, masks = _stacked(seeds, _digits(drawn)[shown], position, null_block(null), reach)
        every = targets[shown]
        least, number = (len(classes), limit) if name == "train" else (1, test_limit)
        indices = balanced(every, number, seed, setting="limit" if name == "train" else "test_limit", least=least)
        held = _held_out(shown[indices], targets, validation, seed) if name == "train" else None
        made[name] = Split(stacked[indices], every[indices], tuple(map(str, classes)), masks[indices], held)
    return made


def check_blocks(source: str = "digits", position: str = "random", null: str = "square") -> None:
    """Raise ValueError if a setting is not one of its choices."""
    for name, value, choices in (("source", source, Source), ("position", position, Position), ("null", null, Null)):
        if value not in get_args(choices):
            raise ValueError(f"blocks: {name} is {shown(value)}, expected {' or '.join(get_args(choices))}")


def null_block(null: Null = "square") -> UInt8[Tensor, "28 28"]:
    """Return the block without information: the white outline of the inner box with its two diagonals, or black."""
    check_blocks(null=null)
    block = torch.zeros(BLOCK, BLOCK, dtype=torch.uint8)
    if null == "square":
        inner, first = torch.zeros(INNER, INNER, dtype=torch.uint8), (BLOCK - INNER) // 2
        inner[[0, -1]], inner[:, [0, -1]] = 255, 255
        inner.fill_diagonal_(255)
        inner |= inner.flip(1)  # the other diagonal
        block[first : first + INNER, first : first + INNER] = inner
    return block


def _of_classes(split: Split, classes: Sequence[int]) -> tuple[StoredImages, Targets]:
    number = torch.full((10,), -1)
    number[list(classes)] = torch.arange(len(classes))
    targets = number[split.targets]
    indices = (targets >= 0).nonzero().flatten()
    return read_rows(split.images, indices), targets[indices]


def _digits(images: StoredImages) -> UInt8[Tensor, "n 28 28"]:
    """Return digits in the middle of a block: digits of 8x8 are enlarged to the inner box, those of 28x28 are not."""
    if images.shape[-1] == BLOCK:
        return images[:, 0]
    large = F.interpolate(images.float(), size=(INNER, INNER), mode="bilinear", align_corners=False)
    return F.pad(large.round().to(torch.uint8), ((BLOCK - INNER) // 2,) * 4)[:, 0]


def _stacked(
    seeds: Seeds, shown: UInt8[Tensor, "n 28 28"], position: Position, null: UInt8[Tensor, "28 28"], reach: int
) -> tuple[StoredImages, Bool[Tensor, "n h w"]]:
    """Return each digit, shifted by up to `reach` pixels, above or below the null block, and the digit block's mask."""
    moves = (uniform(fold(seeds, 1), (2,)) * (2 * reach + 1)).long() - reach
    y, x = (torch.arange(BLOCK) - moves[:, axis, None] for axis in (0, 1))
    wide = F.pad(shown, (reach,) * 4) if reach else shown
    moved = wide[torch.arange(len(shown))[:, None, None], y[:, :, None] + reach, x[:, None, :] + reach]
    above = torch.ones(len(shown), dtype=torch.bool) if position == "top" else uniform(fold(seeds, 0), (1,))[:, 0] < 0.5
    other = null.expand_as(moved)
    where = above[:, None, None]
    images = torch.cat([torch.where(where, moved, other), torch.where(where, other, moved)], dim=1)
    masks = torch.cat([where.expand(-1, BLOCK, BLOCK), ~where.expand(-1, BLOCK, BLOCK)], dim=1)
    return images[:, None], masks


def _held_out(shown: Int[Tensor, " r"], targets: Targets, validation: float, seed: int) -> Int[Tensor, " m"] | None:
    """Return the rows of the held-out digits with all their copies, so that no digit is in both parts."""
    used = shown.unique()
    held = stratified(targets[used], validation, seed)
    return None if held is None else torch.isin(shown, used[held]).nonzero().flatten()
