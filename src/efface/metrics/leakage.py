"""Leakage: the share of a map off the true object, for absolute values.

Source: Shah, Jain & Netrapalli 2021, section 5 (arXiv:2102.12781).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from efface.erase.ranking import count, for_unit
from efface.metrics.formula import Metric
from efface.metrics.probes import Case, Description, Needs
from efface.metrics.probes.description import SHARED, by_fields
from efface.metrics.shared.effects import identity_of, image_blocks, one_an_image, reduced
from efface.metrics.shared.located import localisation, share_of_top
from efface.plug.call import Call
from efface.store.results import Score


def leakage(*, top: float = 0.1) -> Metric:
    """Share off the object of a map's absolute values (`mass`), and of its largest values (`top`).

    On block images, everything off the object is the null block.
    The absolute values are taken after `post`. The metric needs the masks of the true objects. Chance is the share of
    the image off the object, one half for `efface.data.blocks.blocks`. A value is missing if a map is 0 everywhere, or
    if an image has no object. The metric shows where a map points. It blames the map only if the network does not use
    that place itself. Read it beside the network's clean and robust accuracy, since a network that has learnt nothing
    also leaks.

    top: part of an image's pixels that counts as the largest, above 0 and at most 1, at least one pixel. Ties for the
        last places count by their share off the object.

    Source: Shah, Jain & Netrapalli 2021, section 5 (arXiv:2102.12781), which shows it in pictures.
    Differs: the two numbers are ours.
    """
    if not 0 < top <= 1:
        raise ValueError(f"leakage: top is {top}, expected a part of the pixels above 0 and at most 1; change it")
    return localisation(
        "off",
        lambda post: OffObject(top, post),
        {"mass": "mass", "top": "top"},
        "The share of the map's absolute values, and of its largest ones, off the true object, where nothing "
        "shows the class. If the network uses only the object, a truthful map has nothing there.",
        better="lower",
        read_with=("robust_accuracy",),
    )


@dataclass(frozen=True)
class OffObject:
    """Both shares, for the maps after `post`."""

    top: float
    post: tuple[Call, ...]

    needs = Needs(masks=True, blocks=True)
    cost = one_an_image
    identity = identity_of
    map_values = "pixel"

    def describe(self) -> Description:
        return replace(by_fields(self), ties=SHARED, count=f"max(1, floor({self.top} * units + 1e-6))")

    def __call__(self, case: Case) -> Score:
        split, parts = case.data["test"], []
        for indices, images, _ in image_blocks(case, 1):
            maps = for_unit(reduced(case, indices, self.post), "pixel", split.shape[0])
            masks = case.masks[indices].to(images.device)
            parts.append(torch.stack(leaked(maps, masks, top=self.top)).numpy(force=True))
        mass, largest = np.concatenate(parts, axis=1)
        return Score({"mass": mass, "top": largest})


def leaked(
    maps: Float[Tensor, "n h w"], masks: Bool[Tensor, "n h w"], *, top: float = 0.1
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return the share of each map's absolute values off the object, and that of the largest part `top` of pixels."""
    sizes = maps.double().abs()
    whole = sizes.sum((1, 2))
    largest = torch.full((len(maps),), max(1, count(top, sizes[0].numel())), device=maps.device)
    known = (whole > 0) & masks.any(2).any(1)
    shares = (sizes * ~masks).sum((1, 2)) / whole, share_of_top(sizes, ~masks, largest)
    mass, most = (torch.where(known, share, torch.nan).float() for share in shares)
    return mass, most
