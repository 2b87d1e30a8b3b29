"""Groups of a ranking: equally many units of neighbouring rank, and the sum of a map over each."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from efface.base import draws
from efface.base.types import Images, Maps, Ranks, Unit
from efface.erase.contract import labels_of
from efface.erase.ranking import for_unit, removed
from efface.metrics.probes import Case, Description, ranks_of
from efface.metrics.probes.description import SHUFFLED, text
from efface.metrics.shared.effects import reduced
from efface.plug.call import Call


def ranked(
    case: Case, indices: Int[Tensor, " n"], images: Images, post: tuple[Call, ...], unit: Unit | Call
) -> tuple[Maps, Ranks]:
    """Return the maps of these test rows after `post`, with a value for each unit, and their ranks."""
    channels, ties = images.shape[1], draws.seeds_of(f"{case.seed} ties", indices.to(case.device))
    maps = for_unit(reduced(case, indices, post), "feature" if unit == "feature" else "pixel", channels)
    return maps, ranks_of(maps, images, post=(), unit=unit, ties=ties, channels=channels)


def group(ranks: Ranks, k: int, groups: int, *, grouped: bool) -> Bool[Tensor, "n *places"]:
    """Return a mask of the k-th of `groups` groups, from 0, most relevant first.

    grouped: True if pixels that share a rank are one unit.
    """
    upto = removed(ranks, (k + 1) / groups, "most_first", grouped=grouped)
    return upto & ~removed(ranks, k / groups, "most_first", grouped=grouped)


def group_sums(maps: Tensor, ranks: Ranks, groups: int, *, grouped: bool, setting: str) -> Float[Tensor, "n {groups}"]:
    """Return the map's sum over each group, in float64 on the CPU. NaN for an image with fewer units than groups.

    setting: metric and setting that gives the number of groups, for the error if no image has as many units.
    """
    units = ranks.flatten(1).amax(1).cpu() + 1
    if not grouped:
        enough_units(setting, groups, int(units.min()))
    parts = [group(ranks, k, groups, grouped=grouped) for k in range(groups)]
    sums = torch.stack([torch.where(part, maps.double(), 0).flatten(1).sum(1) for part in parts], 1).cpu()
    return sums.masked_fill(units[:, None] < groups, torch.nan)


def check_units(setting: str, groups: int, unit: Unit | Call, images: Images) -> None:
    """Raise ValueError if there are more groups than units in each of these images."""
    if isinstance(unit, Call):
        units = int(labels_of(unit, images).max()) + 1
    else:
        units = images[0].numel() if unit == "feature" else images[0, 0].numel()
    enough_units(setting, groups, units)


def enough_units(setting: str, groups: int, units: int) -> None:
    """Raise ValueError if there are more groups than units."""
    if units < groups:
        raise ValueError(f"{setting} is {groups}; expected at most the image's {units} units: lower it")


def described(groups: int, unit: Unit | Call, imputer: Call | None = None) -> Description:
    """Return the description of a probe that groups the units by rank."""
    fill = "none" if imputer is None else text(imputer)
    return Description(text(unit), fill, SHUFFLED, f"floor(k / {groups} * units + 1e-6) in the first k groups")
