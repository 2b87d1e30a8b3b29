"""Leakage: how much of a map lies off the true object, sign aside.

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
from efface.metrics.shared.located import share_of_top
from efface.plug.call import Call
from efface.store.results import Score


def leakage(*, top: float = 0.1) -> Metric:
    """The share of a map's absolute values off the object, and of its largest ones: on block images in the null block.

    The maps are as `post` makes them, then without their sign. It needs the masks of the true objects. Chance is the
    share of the image off the object, a half for `efface.data.blocks.blocks`. Missing where a map is 0 everywhere, or
    an image has no object. It says where a map points, and blames the map only if the network does not look there
    itself: read it beside the network's clean and robust accuracy, for a network that has learnt nothing leaks, too.

    top: the part of an image's pixels that counts as the largest, above 0 and at most 1, one pixel at least; those that
        tie for the last places count by their share off the object.

    Source: Shah, Jain & Netrapalli 2021, section 5 (arXiv:2102.12781), which shows it in pictures.
    Differs: the two numbers are ours.
    """
    if not 0 < top <= 1:
        raise ValueError(f"leakage: top is {top}, expected a part of the pixels above 0 and at most 1; change it")
    return Metric(
        probes=lambda point: {"off": OffObject(top, point.post)},
        value=lambda scores: {name: scores["off"].values[name] for name in ("mass", "top")},
        direction={"mass": "lower", "top": "lower"},
        sample="images",
        uses=frozenset({"post"}),
        read_with=("robust_accuracy",),
        caption="The share of the map's absolute values, and of its largest ones, off the true object, where nothing "
        "tells the class. A truthful map of a network that looks at the object alone has none there.",
        family="localisation",
        axis="",
        points_for=lambda _shape: (0.0,),
    )


@dataclass(frozen=True)
class OffObject:
    """Both shares, of the maps as `post` makes them."""

    top: float
    post: tuple[Call, ...]

    needs = Needs(masks=True)
    cost = one_an_image
    identity = identity_of
    map_values = "pixel"

    def describe(self) -> Description:
        return replace(by_fields(self), ties=SHARED, count=f"max(1, floor({self.top} * units + 1e-6))")

    def __call__(self, case: Case) -> Score:
        split, found = case.data["test"], []
        for rows, images, _ in image_blocks(case, 1):
            maps = for_unit(reduced(case, rows, self.post), "pixel", split.shape[0])
            masks = case.masks[rows].to(images.device)
            found.append(torch.stack(leaked(maps, masks, top=self.top)).numpy(force=True))
        mass, largest = np.concatenate(found, axis=1)
        return Score({"mass": mass, "top": largest})


def leaked(
    maps: Float[Tensor, "n h w"], masks: Bool[Tensor, "n h w"], *, top: float = 0.1
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The share of each map's absolute values off the object, and of the part `top` of its pixels with the largest."""
    sizes = maps.double().abs()
    whole = sizes.sum((1, 2))
    largest = torch.full((len(maps),), max(1, count(top, sizes[0].numel())), device=maps.device)
    known = (whole > 0) & masks.any(2).any(1)
    shares = (sizes * ~masks).sum((1, 2)) / whole, share_of_top(sizes, ~masks, largest)
    mass, most = (torch.where(known, each, torch.nan).float() for each in shares)
    return mass, most
