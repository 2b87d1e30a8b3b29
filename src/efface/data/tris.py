"""Tetrominoes on noise or photographs: the pixels that tell the class are known, and single pixels may not suffice."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from efface.base.draws import fold, normal, seeds_of, uniform
from efface.base.shown import shown
from efface.base.types import VECTOR_ONE, VECTOR_ZERO, Seeds, Split, StoredImages, Targets
from efface.data.decode import Reader
from efface.data.subset import check_counts, splits
from efface.plug.facts import states
from efface.plug.shared_settings import with_settings_of

Scenario = Literal["linear", "multiplicative", "translations_rotations", "xor"]
Background = Literal["white", "correlated", "natural"]

TETROMINOES = torch.tensor([[[1, 0], [1, 1], [1, 0]], [[1, 0], [1, 0], [1, 1]]])
"""The cells of the T and of the L, in a box of three rows and two columns."""
PLACES = ((1, 1), (4, 5))
"""Row and column of the box of the T and of the L where places are fixed, in eighths of the image."""
ALPHA: dict[int, dict[Scenario, tuple[float, float, float]]] = {
    8: {
        "linear": (0.18, 0.0125, 0.15),
        "multiplicative": (0.7, 0.1, 0.3),
        "translations_rotations": (0.65, 0.2, 0.5),
        "xor": (0.35, 0.15, 0.25),
    },
    64: {
        "linear": (0.03, 0.02, 0.06),
        "multiplicative": (0.2, 0.65, 0.2),
        "translations_rotations": (0.575, 0.375, 0.03),
        "xor": (0.35, 0.15, 0.13),
    },
}
"""Weight of the pattern by size and scenario, for each background: the numbers of the released configurations."""
SIGMA = {8: 3.0, 64: 10.0}
"""Standard deviation of the Gaussian that smooths the correlated background, in pixels, by size."""
REACH = 4.0
"""Standard deviations of the background that 8 bits hold."""
_TOGETHER = 256


@states(is_synthetic=True)
def tris(
    *,
    scenario: Scenario = "linear",
    background: Background = "white",
    size: int = 8,
    alpha: float | None = None,
    natural: str | None = None,
    n_train: int = 8000,
    n_test: int = 2000,
    limit: int | None = None,
    test_limit: int | None = None,
    validation: float = 0.0,
    seed: int = 0,
) -> dict[str, Split]:
    """Two classes, the tetrominoes T and L on a background, grey. The mask of a split holds the pixels that matter.

    Formula: x = alpha p + (1 - alpha) b; multiplicative: x = (1 - alpha p) b. The background b and the pattern p have
    the expected norm 1; where they are multiplied, p is 1 in its cells. Zero is stored as grey (128 of 255), so
    `mlp` with `centred: true` reads x up to a factor. Image i depends only on the settings, the split and i.

    scenario: linear, the T at one fixed place or the L at another; multiplicative, the same two places, where the
        pattern weakens the background; translations_rotations, one of the two anywhere, turned by quarters; xor, both
        at their fixed places, each brighter or darker than the background: equal signs are class 0, others class 1.
        With fixed places the mask has the cells of both tetrominoes, since the absence of one tells as much as the
        presence of the other.
    background: white, independent normal noise; correlated, the same noise under a Gaussian, of 3 pixels at size 8 and
        of 10 at size 64; natural, grey crops of photographs, each less its mean.
    size: height and width in pixels, 8 or 64. A cell has 1 x 1 pixels at size 8 and 8 x 8 at size 64 (4 x 4 where
        tetrominoes are moved).
    alpha: weight of the pattern, above 0 and below 1. None: `ALPHA`, those of the released configurations.
    natural: folder with photographs, at any depth, for `background: natural`. Both splits draw crops from all of them.
    n_train: number of training images, at least 2; the classes take turns.
    n_test: number of test images, at least 2; the classes take turns.
    limit: number of training images, a balanced choice; None takes all.
    test_limit: number of test images, a balanced choice; None takes all.
    validation: share of the training images that is held out, stratified, in [0, 1).
    seed: seeds the images, both choices and the validation images.

    Source: Clark, Wilming & Haufe 2023 (arXiv:2306.12816), XAI-TRIS; sizes, places and alphas are those of the
        released configurations.
    Differs: norms are expected ones, where theirs are of the whole data set, so an image does not depend on the others.
        The correlated background has one variance up to the border. Patterns of 64 x 64 are not smoothed. Crops are
        squares at random places, of half the shorter side. Eight bits; values beyond four standard deviations of the
        background are cut.
    """
    check_tris(scenario, background, size, alpha, natural, n_train=n_train, n_test=n_test)
    weight = ALPHA[size][scenario][get_args(Background).index(background)] if alpha is None else alpha
    photographs = [] if natural is None else _photographs(Path(natural).expanduser(), size)
    made = {}
    for name, count in (("train", n_train), ("test", n_test)):
        targets = torch.arange(count) % 2
        seeds = seeds_of(f"tris {seed} {name}", torch.arange(count))
        signs = _patterns(fold(seeds, 0), targets, scenario, size)
        parts = torch.arange(count).split(_TOGETHER)
        drawn = (_background(fold(seeds[part], 1), background, size, photographs) for part in parts)
        images = torch.cat(
            [_joined(signs[part], each, scenario, weight) for part, each in zip(parts, drawn, strict=True)]
        )
        known = _at_fixed_places(torch.ones(1, 2), size) != 0
        masks = signs != 0 if scenario == "translations_rotations" else known.expand(count, -1, -1).clone()
        made[name] = Split(images, targets, ("equal", "different") if scenario == "xor" else ("T", "L"), masks)
    return splits(**made, limit=limit, test_limit=test_limit, validation=validation, seed=seed)


@with_settings_of(tris, but=("seed",))
def check_tris(
    scenario: str = "linear",
    background: str = "white",
    size: int = 8,
    alpha: float | None = None,
    natural: str | None = None,
    **counts: Any,
) -> None:
    """Raise ValueError for settings that cannot be, and for photographs that are missing or would not be used."""
    for name, value, choices in (("scenario", scenario, Scenario), ("background", background, Background)):
        if value not in get_args(choices):
            raise ValueError(f"tris: {name} is {shown(value)}, expected {', '.join(get_args(choices))}; change it")
    if size not in ALPHA:
        raise ValueError(f"tris: size is {size}, expected 8 or 64 pixels; change it")
    if alpha is not None and not 0 < alpha < 1:
        raise ValueError(f"tris: alpha is {alpha}, expected a weight above 0 and below 1; change it")
    if background == "natural" and natural is None:
        raise ValueError(
            "tris: background is natural, but natural names no photographs; expected a folder of images: set natural, "
            "or take the background white or correlated"
        )
    if background != "natural" and natural is not None:
        raise ValueError(
            f"tris: natural is {shown(natural)}, but background is {background}, which uses no photographs; drop "
            "natural, or set background to natural"
        )
    check_counts(2, **counts)


def _patterns(seeds: Seeds, targets: Targets, scenario: Scenario, size: int) -> Float[Tensor, "n h h"]:
    """Return 1 where an image's pattern is, -1 where it is darker, and 0 elsewhere."""
    if scenario == "translations_rotations":
        return _moved(seeds, targets, size, cell=max(1, size // 16))
    if scenario == "xor":
        first = torch.where(uniform(seeds, (1,))[:, 0] < 0.5, 1.0, -1.0)
        return _at_fixed_places(torch.stack([first, first * (1 - 2 * targets)], 1), size)
    return _at_fixed_places(F.one_hot(targets, 2).float(), size)


def _at_fixed_places(signs: Float[Tensor, "n 2"], size: int) -> Float[Tensor, "n h h"]:
    """Return the T and the L at their places, each with the value that an image gives it."""
    cells = torch.zeros(2, 8, 8)
    for shape, cell, (y, x) in zip(TETROMINOES, cells, PLACES, strict=True):
        cell[y : y + 3, x : x + 2] = shape
    scale = size // 8
    return torch.einsum("nk,khw->nhw", signs, cells.repeat_interleave(scale, 1).repeat_interleave(scale, 2))


def _moved(seeds: Seeds, targets: Targets, size: int, cell: int) -> Float[Tensor, "n h h"]:
    """Return one tetromino in each image, turned by quarters, at a place drawn evenly from those where it fits."""
    canvas, numbers = torch.zeros(len(seeds), size, size), uniform(seeds, (3,))
    for row, (kind, (turn, down, across)) in enumerate(zip(targets.tolist(), numbers.tolist(), strict=True)):
        turned = torch.rot90(TETROMINOES[kind], int(4 * turn))
        stencil = turned.repeat_interleave(cell, 0).repeat_interleave(cell, 1)
        high, wide = stencil.shape
        y, x = int(down * (size - high + 1)), int(across * (size - wide + 1))
        canvas[row, y : y + high, x : x + wide] = stencil
    return canvas


def _joined(
    signs: Float[Tensor, "n h h"], background: Float[Tensor, "n h h"], scenario: Scenario, alpha: float
) -> StoredImages:
    """Return pattern and background as images of 8 bits, in which 128 is 0. The background has the variance 1."""
    if scenario == "multiplicative":
        joined, reach = (1 - alpha * signs) * background, REACH
    else:
        height = alpha * signs.shape[-1] / float((signs[0] != 0).sum()) ** 0.5
        joined, reach = height * signs + (1 - alpha) * background, (1 - alpha) * REACH + height
    return (VECTOR_ZERO + VECTOR_ONE * joined / reach).round().clamp(0, 255).to(torch.uint8)[:, None]


def _background(
    seeds: Seeds, background: Background, size: int, photographs: list[Float[Tensor, "_ _"]]
) -> Float[Tensor, "n h h"]:
    """Return backgrounds of mean 0 and variance 1."""
    if background == "natural":
        return torch.stack([*_crops(seeds, photographs, size)])
    if background == "white":
        return normal(seeds, (size, size))
    around = round(4 * SIGMA[size])
    offsets = torch.arange(size + 2 * around) - torch.arange(size)[:, None] - around
    weights = torch.exp(-0.5 * (offsets / SIGMA[size]).square())
    weights /= weights.norm(dim=1, keepdim=True)
    return weights @ normal(seeds, (size + 2 * around,) * 2) @ weights.T


def _crops(seeds: Seeds, photographs: list[Float[Tensor, "_ _"]], size: int) -> Iterator[Float[Tensor, "h h"]]:
    """Yield a crop for each seed: a square of half the shorter side, resized, less its mean, of variance 1.

    A crop of one colour is 0 everywhere.
    """
    for which, down, across in uniform(seeds, (3,)).tolist():
        whole = photographs[int(which * len(photographs))]
        side = max(1, min(whole.shape) // 2)
        y, x = (int(at * (length - side + 1)) for at, length in zip((down, across), whole.shape, strict=True))
        crop = F.interpolate(
            whole[None, None, y : y + side, x : x + side], (size, size), mode="bilinear", antialias=True
        )[0, 0]
        apart = crop - crop.mean()
        yield apart / apart.square().mean().sqrt().clamp_min(1e-6)


def _photographs(folder: Path, size: int) -> list[Float[Tensor, "_ _"]]:
    """Return the images of a folder in grey, in [0, 1]. The shorter side of a large one becomes 8 times `size`.

    FileNotFoundError: there is no such folder. ValueError: it holds no image, or one that cannot be read.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"tris: natural is {folder}, expected a folder of images; change natural")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
    if not files:
        raise ValueError(
            f"tris: natural is {folder}, which holds no image, expected files named {', '.join(IMG_EXTENSIONS)}; "
            "change natural"
        )
    read, grey = Reader(), list[Tensor]()
    for file in files:
        image = read(str(file)).convert("L")
        if (shorter := min(image.size)) > 8 * size:
            image = image.resize((image.width * 8 * size // shorter, image.height * 8 * size // shorter))
        values: Int[Tensor, " n"] = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).int()
        grey.append(values.float().div(255).reshape(image.height, image.width))
    return grey
