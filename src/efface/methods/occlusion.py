"""Maps from the scores of partly hidden images: forward passes only, no gradients."""

from collections.abc import Callable, Iterator, Sequence
from math import ceil

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from efface.base import draws
from efface.base.shown import shown
from efface.base.types import Images, Seeds, Target, TargetScore
from efface.models.evaluation import evaluating_fast
from efface.models.memory import at_least_one, blocks
from efface.models.scores import target_scores

Size = int | Sequence[int]
"""Pixels of a square, or (height, width)."""
Value = float | Sequence[float] | str
"""Value of a hidden pixel: one number, one number per channel, or "mean", the image's mean of each channel."""
Fields = Float[Tensor, "s n h w"]
Veils = Callable[[slice, slice], Fields]
"""(block of images, range of samples) -> visibility of each pixel, in [0, 1]."""


def occlusion(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    patch: Size = 8,
    stride: Size | None = None,
    value: Value = 0.5,
    score: TargetScore = "logit",
    max_batch: int = 256,
) -> Float[Tensor, "n h w"]:
    """Fall of the score when a patch is hidden, averaged over all patches that cover a pixel: signed.

    Formula: map(p) = mean over patches P that contain p of (score(x) - score(x with P hidden)).

    Patches start at every `stride`-th pixel from the upper left corner. The last patch of a row or column is cut off
    at the border if it does not fit, so every pixel is covered. It costs one forward pass per patch, and one for the
    whole image.

    patch: size of the patch in pixels, one number, or height and width; at most the image. All channels are hidden.
    stride: pixels between the starts of patches, at most the patch size; by default half of it. Half the stride costs
        four times as many passes.
    value: value of hidden pixels, in [0, 1]: one number, one number per channel, or "mean", each image's mean of each
        channel.
    score: score of the target class: logit, log_probability, probability or loss (cross entropy).
    max_batch: most images in one pass, at least 1. It limits the memory and changes maps by rounding only.

    Source: Zeiler & Fergus 2014, section 4.2 (arXiv:1311.2901).
    Differs: the map is the fall of the score, where the paper plots the score; overlapping patches are averaged.
    """
    images = images.detach()
    h, w = images.shape[2:]
    high, wide = _pair("patch", patch)
    down, right = (max(1, high // 2), max(1, wide // 2)) if stride is None else _pair("stride", stride)
    if high > h or wide > w:
        raise ValueError(f"patch is {high} x {wide}; expected at most the image, {h} x {w} pixels: shrink it")
    if down > high or right > wide:
        raise ValueError(
            f"stride is {down} x {right}, patch {high} x {wide}; expected a stride of at most the patch: with a larger "
            "one, pixels between patches are never hidden"
        )
    fill = filling(images, value)
    rows_hidden, columns_hidden = _patches(images, 2, high, down), _patches(images, 3, wide, right)
    falls = torch.zeros_like(images[:, 0])
    with evaluating_fast(model, images) as network, torch.no_grad():
        for block, some in passes(len(images), len(rows_hidden) * len(columns_hidden), max_batch):
            if some.start == 0:
                whole = target_scores(network, images[block], targets[block], score)
            numbers = torch.arange(some.start, some.stop, device=images.device)
            ys, xs = numbers // len(columns_hidden), numbers % len(columns_hidden)
            hidden = rows_hidden[ys, :, None] & columns_hidden[xs, None, :]
            points = torch.where(hidden[:, None, None], fill[block], images[block])
            fall = whole - point_scores(network, points, targets[block], score)
            falls[block] += torch.einsum("sn,shw->nhw", fall, hidden.to(fall.dtype))
    return falls / (rows_hidden.sum(0)[:, None] * columns_hidden.sum(0)[None, :])


def rise(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    seeds: Seeds | None = None,
    samples: int = 4000,
    cells: int = 7,
    visible: float = 0.5,
    value: Value = 0.0,
    fields: Fields | None = None,
    score: TargetScore = "probability",
    max_batch: int = 256,
) -> Float[Tensor, "n h w"]:
    """Mean score of randomly masked images, weighted by the visibility of each pixel: never negative for probabilities.

    Formula: map(p) = sum over s of score(m_s x + (1 - m_s) value) m_s(p) / (samples * visible), m_s the s-th mask.

    A mask is a random grid of `cells` x `cells`; each cell is visible or hidden. The grid is enlarged bilinearly to one
    cell more than the image, and cut to the image at a random offset. So the mean visibility of a pixel is `visible`.
    Each mask costs one forward pass.

    seeds: one integer per image. An image's masks depend only on its seed, not on the batch.
    samples: masks per image, at least 1; each costs one forward pass.
    cells: cells of the grid along height and along width, at least 1 and at most the pixels of the shorter side.
    visible: probability that a cell is visible, above 0 and at most 1.
    value: value of hidden pixels, in [0, 1]: one number, one number per channel, or "mean", the image's mean of each
        channel.
    fields: the masks themselves, s n h w with s = samples, 1 where the image is visible, 0 where it is hidden. Then no
        seeds are needed. The map is still divided by `visible`.
    score: score of the target class: logit, log_probability, probability or loss (cross entropy). If `targets` are
        weights of the classes, it must be logit.
    max_batch: most images in one pass, at least 1. It limits the memory and changes maps by rounding only.

    Source: Petsiuk, Das & Saenko 2018, section 3 (arXiv:1806.07421).
    Differs: each image has its own masks, by its seed. A hidden pixel is black in [0, 1], before the network's
        normalisation.
    """
    at_least_one("samples", samples)
    if not 0 < visible <= 1:
        raise ValueError(
            f"visible is {visible}; expected above 0 and at most 1: the probability that a cell is visible"
        )
    images = images.detach()
    fill = filling(images, value)
    veils = drawn_veils(images, seeds, cells, visible) if fields is None else given_veils(fields, samples, images)
    total = torch.zeros_like(images[:, 0])
    with evaluating_fast(model, images) as network, torch.no_grad():
        for block, some in passes(len(images), samples, max_batch):
            seen = veils(block, some)
            points = torch.lerp(fill[block], images[block], seen[:, :, None])
            total[block] += torch.einsum("sn,snhw->nhw", point_scores(network, points, targets[block], score), seen)
    return total / (samples * visible)


def passes(images: int, points: int, max_batch: int) -> Iterator[tuple[slice, slice]]:
    """Yield each block of images with ranges of its points, so that a pass has at most `max_batch` rows."""
    for block in blocks(images, max_batch):
        together = max(1, max_batch // (block.stop - block.start))
        yield from ((block, slice(first, min(first + together, points))) for first in range(0, points, together))


def point_scores(
    model: nn.Module, points: Float[Tensor, "s n c h w"], targets: Target, score: TargetScore
) -> Float[Tensor, "s n"]:
    """Return the score of each image at each of its points."""
    aims = targets.repeat(len(points), *(1,) * (targets.ndim - 1))
    return target_scores(model, points.flatten(0, 1), aims, score).unflatten(0, points.shape[:2])


def _pair(setting: str, size: Size) -> tuple[int, int]:
    sizes = (size, size) if isinstance(size, int) else tuple(size)
    if len(sizes) != 2 or min(sizes) < 1:
        raise ValueError(f"{setting} is {size}; expected a number of pixels, at least 1, or two: height and width")
    return sizes


def _patches(images: Images, axis: int, patch: int, stride: int) -> Bool[Tensor, "patches size"]:
    """Return for each patch along an axis a mask of the pixels that it hides."""
    size = images.shape[axis]
    starts = stride * torch.arange(ceil((size - patch) / stride) + 1, device=images.device)[:, None]
    pixels = torch.arange(size, device=images.device)
    return (pixels >= starts) & (pixels < starts + patch)


def given_veils(fields: Tensor, samples: int, images: Images) -> Veils:
    """Return the masks s n h w of `rise` that the caller made, for these images.

    ValueError: there are not `samples` masks, or they have another shape than the images.
    """
    if len(fields) != samples:
        raise ValueError(f"fields hold {len(fields)} samples; expected {samples}: pass samples={len(fields)}")
    expected = samples, len(images), *images.shape[2:]
    if fields.shape != expected:
        raise ValueError(f"fields have shape {tuple(fields.shape)}; expected {expected}, one mask per sample and image")
    return lambda block, some: fields[some, block].detach().to(images)


def drawn_veils(images: Images, seeds: Seeds | None, cells: int, visible: float) -> Veils:
    """Return the random masks of `rise`; its docstring says how they are drawn and describes the arguments.

    ValueError: `cells` is outside its range, or the seeds are missing.
    """
    h, w = images.shape[2:]
    if not 1 <= cells <= min(h, w):
        raise ValueError(f"cells is {cells}; expected 1 to {min(h, w)}, the pixels of the shorter side")
    if seeds is None:
        raise ValueError("seeds are missing; expected one integer per image: pass seeds, or the masks as fields")
    seeds = seeds.to(images.device)
    down, right = _stretched(cells, h, images), _stretched(cells, w, images)

    def drawn(block: slice, some: slice) -> Fields:
        sample_seeds = torch.cat([draws.fold(seeds[block], sample) for sample in range(some.start, some.stop)])
        numbers = draws.uniform(sample_seeds, (cells * cells + 2,))
        grids = (numbers[:, :-2] < visible).unflatten(1, (cells, cells)).to(images.dtype)
        y, x = (numbers[:, -2] * len(down)).long(), (numbers[:, -1] * len(right)).long()
        return (down[y] @ grids @ right[x].mT).unflatten(0, (some.stop - some.start, -1))

    return drawn


def _stretched(cells: int, size: int, like: Tensor) -> Float[Tensor, "shifts size cells"]:
    """Return the weight of each cell in each pixel, along one axis, for every offset at which the line can be cut."""
    cell = ceil(size / cells)
    eye = torch.eye(cells, dtype=like.dtype, device=like.device)
    line = F.interpolate(eye[None], size=(cells + 1) * cell, mode="linear", align_corners=False)[0]
    return line.unfold(1, size, 1)[:, :cell].permute(1, 2, 0)


def filling(images: Images, value: Value) -> Float[Tensor, "#n #c 1 1"]:
    """Return the value of hidden pixels for each image."""
    if value == "mean":
        return images.mean((2, 3), keepdim=True)
    if isinstance(value, str):
        raise ValueError(f"value is {shown(value)}; expected a number, one number per channel, or 'mean'")
    values = images.new_tensor(value).reshape(1, -1, 1, 1)
    if values.shape[1] not in (1, images.shape[1]):
        raise ValueError(
            f"value has {values.shape[1]} numbers; expected one, or one for each of the images' "
            f"{images.shape[1]} channels"
        )
    return values.expand(len(images), -1, -1, -1)
