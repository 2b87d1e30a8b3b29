"""Maps that should not be scored: constant, full of ties, not finite, equal for many images, or blind to the class."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from efface.base.types import Maps


@dataclass(frozen=True)
class Defects:
    """Faults of a method's maps, map by map.

    Two values are equal within a tolerance of a map's range, after each map is scaled to [0, 1], since the scale does
    not change the order of erasure. Maps that are not finite are only counted as such, and so are constant maps.

    nonfinite: True if the map holds a NaN or an infinity.
    constant: True if the map has the same value everywhere.
    levels: number of distinct values divided by units, 1 without ties. NaN if the map is not finite or constant.
    tied: share of units with the value of another unit. NaN if the map is not finite or constant.
    alike: True if the map belongs to the largest group of equal maps, of two or more.
    blind: 1 if the map equals that of another class of the same image, 0 if not. NaN without such a map, or if one of
        the two is not finite.
    """

    nonfinite: Bool[Tensor, " n"]
    constant: Bool[Tensor, " n"]
    levels: Float[Tensor, " n"]
    tied: Float[Tensor, " n"]
    alike: Bool[Tensor, " n"]
    blind: Float[Tensor, " n"]


def degeneracy(maps: Maps, others: Tensor | None = None, tolerance: float = 1e-5) -> Defects:
    """Return the faults of these maps. Every two maps are compared, so use it for tens of maps, not for thousands.

    others: maps of the same images for another class. Without them, blindness is not tested.
    tolerance: share of a map's range from which two values differ. Rounding in float32 is near 1e-6. Ties are exact.
    """
    if others is not None and others.shape != maps.shape:
        raise ValueError(
            f"maps are {tuple(maps.shape)}, those for another class {tuple(others.shape)}; give both for the same "
            "images"
        )
    flat = maps.detach().flatten(1).float()
    finite = flat.isfinite().all(1)
    scaled, varied = _scaled(flat, tolerance)
    judged = finite & varied
    levels, tied = torch.full((2, len(flat)), torch.nan, dtype=torch.float64, device=flat.device)
    levels[judged], tied[judged] = _ties(flat[judged])
    alike = torch.zeros_like(judged)
    alike[judged] = _most_frequent(scaled[judged], tolerance)
    blind = torch.full_like(levels, torch.nan)
    if others is not None:
        other = others.detach().flatten(1).float()
        both = finite & other.isfinite().all(1)
        apart = (scaled - _scaled(other, tolerance)[0]).abs().amax(1)
        blind[both] = (apart[both] <= tolerance).double()
    return Defects(~finite, finite & ~varied, levels, tied, alike, blind)


def constant(maps: Maps, *, tolerance: float = 1e-5) -> Bool[Tensor, " n"]:
    """Return whether each map has the same value everywhere. Maps that are not finite are not constant.

    tolerance: as for `degeneracy`.
    """
    flat = maps.detach().flatten(1).float()
    return flat.isfinite().all(1) & ~_scaled(flat, tolerance)[1]


def _ties(flat: Float[Tensor, "n units"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return the distinct values divided by units, and the share of units that tie, for each map."""
    ordered = flat.sort(dim=1).values
    steps = ordered[:, 1:] != ordered[:, :-1]
    edge = torch.ones(len(ordered), 1, dtype=torch.bool, device=flat.device)
    alone = torch.cat([edge, steps], 1) & torch.cat([steps, edge], 1)
    return (steps.sum(1) + 1).double() / flat.shape[1], (~alone).double().mean(1)


def _most_frequent(scaled: Float[Tensor, "n units"], tolerance: float) -> Bool[Tensor, " n"]:
    """Return which maps equal the map that most others equal. None does if no two maps are equal."""
    if not len(scaled):
        return torch.zeros(0, dtype=torch.bool, device=scaled.device)
    same = torch.stack([(scaled - row).abs().amax(1) <= tolerance for row in scaled])
    most = same[int(same.sum(1).argmax())]
    return most & (most.sum() > 1)


def _scaled(flat: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return each map scaled to [0, 1] (a constant map is 0), and whether it varies by more than the tolerance."""
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    varied = high - low > tolerance * torch.maximum(low.abs(), high.abs())
    scaled = torch.where(varied, (flat - low) / torch.where(varied, high - low, 1), 0)
    return scaled, varied.flatten()
