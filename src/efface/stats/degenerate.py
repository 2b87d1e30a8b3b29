"""Maps that no score should judge: constant, full of ties, not finite, the same for all images, blind to the class."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from efface.types import Maps


@dataclass(frozen=True)
class Degeneracy:
    """What is wrong with a method's maps, counted over any part of them; `merged` joins two parts.

    Equal, here, is within a tolerance of a map's own range, each map scaled to [0, 1]: an order of erasure knows no
    scale. Only finite maps are judged, and constant ones only as constant.

    maps, nonfinite, constant: how many there are, hold a NaN or an infinity, are the same value everywhere.
    nonfinite_values: how many values are not finite.
    judged: maps that are neither: those of which ties and spread are counted.
    levels: sum, over those, of distinct values / units: 1 for each map without a tie.
    fewest_levels: distinct values of the map that has fewest; 0 for none.
    tied: sum, over those, of the share of units whose value another unit has too.
    paired, blind: maps that were compared with one for another class of the same image, and how many were equal.
    lowest, highest: of the scaled maps, at each place; None before the first.
    """

    maps: int
    nonfinite: int
    nonfinite_values: int
    constant: int
    judged: int
    levels: float
    fewest_levels: int
    tied: float
    paired: int
    blind: int
    lowest: Float[Tensor, " units"] | None
    highest: Float[Tensor, " units"] | None

    @property
    def constant_share(self) -> float:
        """Of the maps, those that rank nothing."""
        return _share(float(self.constant), self.maps)

    @property
    def level_share(self) -> float:
        """Distinct values over units, mean over the maps that are judged: 1 without ties."""
        return _share(self.levels, self.judged)

    @property
    def tied_share(self) -> float:
        """Units that share their value with another, mean over the maps that are judged: 0 without ties."""
        return _share(self.tied, self.judged)

    @property
    def blind_share(self) -> float:
        """Of the maps compared, those that are the same for another class; NaN where none were."""
        return _share(float(self.blind), self.paired)

    @property
    def spread(self) -> float:
        """The farthest that two scaled maps are apart at any place: 0 for one map for all images, 1 at most.

        NaN for fewer than two judged maps.
        """
        if self.judged < 2 or self.lowest is None or self.highest is None:
            return float("nan")
        return float((self.highest - self.lowest).max())

    def says(self, tolerance: float = 1e-5) -> tuple[str, ...]:
        """What a reader of scores must know, a sentence each; none where all is well.

        tolerance: a spread up to this is the same map for all images.
        """
        found = []
        if self.nonfinite:
            found.append(
                f"{self.nonfinite} of {self.maps} maps hold {self.nonfinite_values} values that are not finite."
            )
        if self.constant:
            found.append(f"{self.constant} of {self.maps} maps are constant: their order is the tie rule's.")
        if self.tied_share > 0.5:
            found.append(
                f"{100 * self.tied_share:.3g} % of the units tie with another of their map (fewest distinct values: "
                f"{self.fewest_levels}): much of the order is the tie rule's."
            )
        if self.spread <= tolerance:
            found.append(f"All {self.judged} maps are the same but for scale: they do not depend on the image.")
        if self.blind:
            found.append(
                f"{self.blind} of {self.paired} maps are the same for another class: blind to what they explain."
            )
        return tuple(found)


def degeneracy(blocks: Iterable[Tensor], others: Iterable[Tensor] | None = None, tolerance: float = 1e-5) -> Degeneracy:
    """What is wrong with maps that come in blocks: the same for any blocks, with one block in memory at a time.

    blocks: the maps of one method, some images at a time.
    others: the same images' maps for another class, in the same blocks; without them nothing is said of blindness.
    tolerance: of a map's range, from which two values are different: rounding of float32 is near 1e-6. Ties are exact.
    """
    pairs = ((block, None) for block in blocks) if others is None else _together(blocks, others)
    return functools.reduce(merged, (_of_block(block, other, tolerance) for block, other in pairs), NOTHING)


def merged(one: Degeneracy, two: Degeneracy) -> Degeneracy:
    """Both parts as one."""
    if one.lowest is not None and two.lowest is not None and len(one.lowest) != len(two.lowest):
        raise ValueError(
            f"maps have {len(one.lowest)} and {len(two.lowest)} units; a method's maps must be of one size to be "
            "judged together"
        )
    fewest = [each.fewest_levels for each in (one, two) if each.judged]
    return Degeneracy(
        maps=one.maps + two.maps,
        nonfinite=one.nonfinite + two.nonfinite,
        nonfinite_values=one.nonfinite_values + two.nonfinite_values,
        constant=one.constant + two.constant,
        judged=one.judged + two.judged,
        levels=one.levels + two.levels,
        fewest_levels=min(fewest, default=0),
        tied=one.tied + two.tied,
        paired=one.paired + two.paired,
        blind=one.blind + two.blind,
        lowest=_either(torch.minimum, one.lowest, two.lowest),
        highest=_either(torch.maximum, one.highest, two.highest),
    )


NOTHING = Degeneracy(0, 0, 0, 0, 0, 0.0, 0, 0.0, 0, 0, None, None)
"""No maps yet."""


def _together(blocks: Iterable[Tensor], others: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    for maps, other in itertools.zip_longest(blocks, others):
        if maps is None or other is None or other.shape != maps.shape:
            shapes = ["nothing" if each is None else tuple(each.shape) for each in (maps, other)]
            raise ValueError(
                f"a block of maps is {shapes[0]}, that for another class {shapes[1]}; give both for the same images in "
                "the same blocks"
            )
        yield maps, other


def _of_block(maps: Maps, other: Maps | None, tolerance: float) -> Degeneracy:
    flat = maps.detach().flatten(1).float()
    finite = flat.isfinite().all(1)
    scaled, varied = _scaled(flat, tolerance)
    judged = finite & varied
    ordered = flat[judged].sort(dim=1).values
    steps = ordered[:, 1:] != ordered[:, :-1]
    levels = steps.sum(1) + 1
    edge = torch.ones(len(ordered), 1, dtype=torch.bool, device=flat.device)
    alone = torch.cat([edge, steps], 1) & torch.cat([steps, edge], 1)
    paired, blind = 0, 0
    if other is not None:
        flat_other = other.detach().flatten(1).float()
        both = finite & flat_other.isfinite().all(1)
        apart = (scaled - _scaled(flat_other, tolerance)[0]).abs().amax(1)
        paired, blind = int(both.sum()), int((both & (apart <= tolerance)).sum())
    kept = scaled[judged]
    return Degeneracy(
        maps=len(flat),
        nonfinite=int((~finite).sum()),
        nonfinite_values=int((~flat.isfinite()).sum()),
        constant=int((finite & ~varied).sum()),
        judged=len(kept),
        levels=float((levels.double() / flat.shape[1]).sum()),
        fewest_levels=int(levels.min()) if len(kept) else 0,
        tied=float((~alone).double().mean(1).sum()) if len(kept) else 0.0,
        paired=paired,
        blind=blind,
        lowest=kept.amin(0) if len(kept) else None,
        highest=kept.amax(0) if len(kept) else None,
    )


def _scaled(flat: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Each map from 0 to 1, a constant one 0; and whether it varies by more than a share of its largest value."""
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    varied = high - low > tolerance * torch.maximum(low.abs(), high.abs())
    scaled = torch.where(varied, (flat - low) / torch.where(varied, high - low, 1), 0)
    return scaled, varied.flatten()


def _either(choose: Callable[..., Tensor], one: Tensor | None, two: Tensor | None) -> Tensor | None:
    return two if one is None else one if two is None else choose(one, two)


def _share(part: float, whole: int) -> float:
    return part / whole if whole else float("nan")
