"""Maps that no score should judge: constant, full of ties, not finite, the same for many images, blind to the class."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from efface.types import Maps


@dataclass(frozen=True)
class Defects:
    """What is wrong with a method's maps, map by map.

    Equal, here, is within a tolerance of a map's own range, each map scaled to [0, 1]: an order of erasure knows no
    scale. Only finite maps are judged, and constant ones only as constant.

    nonfinite, constant: whether it holds a NaN or an infinity; whether it is the same value everywhere.
    levels: distinct values over units, 1 without ties. tied: share of the units whose value another unit has too. NaN
        for a map that is either of those.
    alike: whether it is one of the largest group of equal maps, of two or more: the same for so many images.
    blind: 1 where it equals the map for another class of the same image, 0 where not; NaN where none was given, or one
        of the two is not finite.
    """

    nonfinite: Bool[Tensor, " n"]
    constant: Bool[Tensor, " n"]
    levels: Float[Tensor, " n"]
    tied: Float[Tensor, " n"]
    alike: Bool[Tensor, " n"]
    blind: Float[Tensor, " n"]


def degeneracy(maps: Maps, others: Tensor | None = None, tolerance: float = 1e-5) -> Defects:
    """What is wrong with these maps. Every two are compared: some tens of them, not thousands.

    others: the same images' maps for another class; without them nothing is said of blindness.
    tolerance: of a map's range, from which two values are different: rounding of float32 is near 1e-6. Ties are exact.
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


def _ties(flat: Float[Tensor, "n units"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Of each map, distinct values over units, and the share of its units that tie."""
    ordered = flat.sort(dim=1).values
    steps = ordered[:, 1:] != ordered[:, :-1]
    edge = torch.ones(len(ordered), 1, dtype=torch.bool, device=flat.device)
    alone = torch.cat([edge, steps], 1) & torch.cat([steps, edge], 1)
    return (steps.sum(1) + 1).double() / flat.shape[1], (~alone).double().mean(1)


def _most_frequent(scaled: Float[Tensor, "n units"], tolerance: float) -> Bool[Tensor, " n"]:
    """Which maps equal the one that most others equal; none where no two are equal."""
    if not len(scaled):
        return torch.zeros(0, dtype=torch.bool, device=scaled.device)
    same = torch.stack([(scaled - each).abs().amax(1) <= tolerance for each in scaled])
    most = same[int(same.sum(1).argmax())]
    return most & (most.sum() > 1)


def _scaled(flat: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Each map from 0 to 1, a constant one 0; and whether it varies by more than a share of its largest value."""
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    varied = high - low > tolerance * torch.maximum(low.abs(), high.abs())
    scaled = torch.where(varied, (flat - low) / torch.where(varied, high - low, 1), 0)
    return scaled, varied.flatten()
