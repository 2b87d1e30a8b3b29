"""Similarity of two maps of an image: rank correlation and structural similarity, for signed and for absolute maps."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from efface.base.types import Images, Maps, Targets
from efface.erase.masking import to_float
from efface.metrics.probes import Case, Description, Probe
from efface.metrics.probes.description import by_fields
from efface.store.arrays import read_rows
from efface.store.results import Score

NAMES = ("spearman", "spearman_absolute", "ssim", "ssim_absolute")
BETTER: Mapping[str, Literal["lower"]] = dict.fromkeys(NAMES, "lower")
RANGES = dict.fromkeys(NAMES, (-1.0, 1.0))

_SIGMA, _REACH = 1.5, 5  # the window of Wang et al. 2004: 11 pixels across
_C1, _C2 = 0.01**2, 0.03**2


def rank_correlation(one: Float[Tensor, "n *units"], other: Float[Tensor, "n *units"]) -> Float[Tensor, " n"]:
    """Spearman's rank correlation of two maps for each image, in float64.

    Ties share the mean of their ranks, and only the order of the values counts. 0 if one map is constant, which is the
    mean over all orders of its ties. NaN if both are constant.

    Source: Spearman 1904; as the similarity of maps: Adebayo et al. 2018, section 3 (arXiv:1810.03292).
    Differs: the original is undefined if one map is constant.
    """
    first, second = (_mean_ranks(maps.flatten(1)) for maps in (one, other))
    first, second = (ranks - ranks.mean(1, keepdim=True) for ranks in (first, second))
    spreads = torch.stack([first.square().sum(1), second.square().sum(1)])
    scale = spreads.prod(0).sqrt()
    correlation = torch.where(scale > 0, (first * second).sum(1) / torch.where(scale > 0, scale, 1), 0)
    return torch.where((spreads > 0).any(0), correlation, torch.nan)


def structural_similarity(
    one: Float[Tensor, "n h w"], other: Float[Tensor, "n h w"], *, span: float = 2.0
) -> Float[Tensor, " n"]:
    """Structural similarity of two maps, in float64: the mean of Wang's index over all Gaussian windows.

    The index compares the means, the variances and the covariance of the two maps in a window.

    It is 1 for equal maps, also for flat ones. The window (11 pixels, sigma 1.5) is cut to the size of smaller images.
    It moves over all places where it fits.

    span: difference of the largest and the smallest value that a map may have.

    Source: Wang, Bovik, Sheikh & Simoncelli 2004, equation 13.
    """
    first, second = one.double()[:, None], other.double()[:, None]
    products = torch.cat([first, second, first * first, second * second, first * second])
    for axis in (2, 3):
        products = _windowed(products, axis)
    mean1, mean2, square1, square2, product = products[:, 0].chunk(5)
    c1, c2 = _C1 * span**2, _C2 * span**2
    alike = (2 * mean1 * mean2 + c1) * (2 * (product - mean1 * mean2) + c2)
    whole = (mean1**2 + mean2**2 + c1) * (square1 - mean1**2 + square2 - mean2**2 + c2)
    return (alike / whole).mean((1, 2))


def similarities(one: Maps, other: Maps) -> dict[str, Float[Tensor, " n"]]:
    """Return Spearman and SSIM of each pair of maps, signed and absolute. Channels are summed after the absolute value.

    For SSIM each map is divided by its largest absolute value, so the scale of a gradient does not count.
    """
    by_name: dict[str, Tensor] = {}
    for name, change, span in (("", _same, 2.0), ("_absolute", torch.abs, 1.0)):
        pair = [_summed(change(maps)) for maps in (one, other)]
        by_name[f"spearman{name}"] = rank_correlation(*pair)
        by_name[f"ssim{name}"] = structural_similarity(*map(_scaled, pair), span=span)
    return {name: by_name[name] for name in NAMES}


def compares(probe: Probe) -> Description:
    """Return the description of a probe that compares maps."""
    return replace(by_fields(probe), unit="pixel", ties="shared: the mean of their ranks")


def compared(case: Case, ask: Callable[[Tensor, Images, Targets], Maps]) -> Score:
    """Return the similarities of the stored maps with those of `ask`, called with (indices, images, classes)."""
    values: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}
    for indices in case.test_rows.split(case.max_batch):
        images = to_float(read_rows(case.data["test"].images, indices).to(case.device))
        maps = ask(indices, images, case.target_classes[indices].to(case.device))
        stored = case.maps["test"].take(indices).to(case.device)
        for name, value in similarities(stored, maps).items():
            values[name].append(value.float().numpy(force=True))
        case.advance(float(len(indices)))
    return Score({name: np.concatenate(parts) for name, parts in values.items()})


def _same(maps: Tensor) -> Tensor:
    return maps


def _summed(maps: Maps) -> Float[Tensor, "n h w"]:
    return maps.sum(1) if maps.ndim == 4 else maps


def _scaled(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    most = maps.abs().amax((1, 2), keepdim=True)
    return maps / torch.where(most > 0, most, 1)


def _mean_ranks(values: Float[Tensor, "n units"]) -> Float[Tensor, "n units"]:
    """Return ranks from 0. Ties share the mean of their ranks."""
    ordered, order = values.sort(dim=1)
    new = torch.ones_like(ordered, dtype=torch.int64)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    group = new.cumsum(1) - 1
    places = torch.arange(values.shape[1], dtype=torch.float64, device=values.device).expand_as(ordered)
    sums, counts = torch.zeros_like(places), torch.zeros_like(places)
    sums = sums.scatter_add(1, group, places)
    counts = counts.scatter_add(1, group, torch.ones_like(places))
    means = (sums / counts.clamp(min=1)).gather(1, group)
    return torch.empty_like(means).scatter_(1, order, means)


def _windowed(values: Float[Tensor, "n 1 h w"], axis: int) -> Tensor:
    reach = min(_REACH, (values.shape[axis] - 1) // 2)
    places = torch.arange(-reach, reach + 1, dtype=values.dtype, device=values.device)
    weights = torch.exp(-0.5 * (places / _SIGMA) ** 2)
    kernel = (weights / weights.sum()).reshape(1, 1, *((-1, 1) if axis == 2 else (1, -1)))
    return F.conv2d(values, kernel)
