"""Degradation: the probability of the explained class while whole patches are removed, the most relevant first."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from efface.base.types import Images, Order
from efface.erase.contract import labels_of
from efface.erase.masking import to_float
from efface.metrics.formula import Metric, Point
from efface.metrics.probes import Case, Description, Erasure, Needs, Perturb
from efface.metrics.probes.description import NONE, SHUFFLED, by_fields
from efface.metrics.probes.erasure import fills_averaged
from efface.metrics.shared.orders import SIGNED, UNIT, gap, value_of
from efface.plug.call import Call
from efface.store.arrays import read_rows
from efface.store.results import Score
from efface.training.loop import TrainingSettings

_WAYS: tuple[Literal["most_first", "least_first", "random"], ...] = ("most_first", "least_first", "random")


def degradation(*, size: int = 9, patches: int = 100, step: int = 1) -> Metric:
    """Probability of the explained class after 0, 1, ... patches turn flat, in three orders.

    Values of each image at point k:

    probability: without the k most relevant patches (MoRF).
    drop: the probability lost. Its mean over the points is AOPC.
    gain: LeRF - MoRF.
    probability_least_first: without the k least relevant patches (LeRF).
    probability_random: without k random patches.

    The relevance of a patch is the mean over its pixels. A removed patch turns to its own mean colour. The summary is
    the mean of the points.

    size: width of a patch in pixels, at least 1. The last row and column are smaller if it does not divide the image.
    patches: largest number of removed patches, at least 1. It never exceeds the number in an image.
    step: patches removed from one point to the next, at least 1. Each point costs three forward passes of the test
        images. All methods share the pass in random order.

    Source: Schwarzenberg & Castle 2020 (Pattern-guided integrated gradients), the degradation experiment of the
    released code; AOPC: Samek et al. 2015, equation 12 (arXiv:1509.06321).
    Differs: point k removes the k first patches in all channels, where that code leaves the very first in place and
    channels below zero untouched.
    """
    for name, value in (("size", size), ("patches", patches), ("step", step)):
        if value < 1:
            raise ValueError(f"degradation: {name} is {value}, expected 1 or more; change it")

    def at(shape: tuple[int, int, int]) -> tuple[float, ...]:
        _, h, w = shape
        most = min(patches, math.ceil(h / size) * math.ceil(w / size))
        return tuple(float(removed) for removed in range(0, most + 1, step))

    return Metric(
        probes=_probes,
        value=_values,
        direction={
            "probability": "lower",
            "drop": "higher",
            "gain": "higher",
            "probability_least_first": "higher",
            "probability_random": "none",
        },
        ranges=dict.fromkeys(("probability", "probability_least_first", "probability_random"), UNIT)
        | {"drop": SIGNED, "gain": SIGNED},
        sample="images",
        uses=frozenset({"imputer", "unit", "groups", "post"}),
        defaults={
            "imputer": {"call": "efface.impute.patch_mean", "kwargs": {"size": size}},
            "unit": {"call": "efface.erase.units.patch", "kwargs": {"size": size}},
        },
        axis="patches removed",
        point_settings="'patches' and 'step'",
        points_for=at,
        summary="mean",
        caption="Whole patches turn to their own mean colour, the most relevant ones first. With "
        "a truthful map the probability of the explained class falls within a few patches.",
    )


@dataclass(frozen=True)
class Degrade:
    """Score of the given network on test images without `patches` of their patches (or groups of another unit)."""

    order: Order | Literal["random"]
    patches: int
    imputer: Call
    post: tuple[Call, ...]
    unit: Literal["pixel", "feature"] | Call

    can_drop_tokens = True

    @property
    def needs(self) -> Needs:
        return Needs(maps=self.order != "random", blocks=True)

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes."""
        return float(images["test"] * fills_averaged(self.imputer))

    def identity(self) -> dict[str, Any]:
        return {"probe": "degrade", "patches": self.patches} | self._erasure(0.5).identity()

    def describe(self) -> Description:
        return replace(by_fields(self), ties=SHUFFLED if self.needs.maps else NONE, count="min(patches, units)")

    def check(self, network: nn.Module, images: Images) -> None:
        """Raise ValueError if these images differ in their number of groups, or if `Perturb` refuses the network.

        The run counts the groups of all test images.
        """
        if isinstance(self.unit, Call):
            whole = self._same(self._counts(images))
            Perturb(self._erasure(min(1.0, self.patches / whole))).check(network, images)

    def __call__(self, case: Case) -> Score:
        return Perturb(self._erasure(min(1.0, self.patches / self._whole(case))))(case)

    def _erasure(self, fraction: float) -> Erasure:
        return Erasure(self.order, fraction, self.imputer, self.post, self.unit)

    def _whole(self, case: Case) -> int:
        """Return the number of groups of a test image. All images are counted, once for all points and methods."""
        split = case.data["test"]
        c, h, w = split.shape
        if not isinstance(self.unit, Call):
            return h * w if self.unit == "pixel" else c * h * w

        def counted() -> dict[str, Tensor]:
            parts = torch.arange(len(split)).split(case.max_batch)
            return {
                "groups": torch.cat([self._counts(to_float(read_rows(split.images, indices))) for indices in parts])
            }

        return self._same(case.once("groups", {"unit": self.unit.identity()}, counted)["groups"])

    def _counts(self, images: Images) -> Int[Tensor, " n"]:
        assert isinstance(self.unit, Call)
        return labels_of(self.unit, images).flatten(1).amax(1).cpu() + 1

    def _same(self, counts: Int[Tensor, " n"]) -> int:
        """Return the common count. ValueError: an image has another count than image 0."""
        assert isinstance(self.unit, Call)
        odd = (counts != counts[0]).nonzero().flatten()
        if len(odd):
            row = int(odd[0])
            raise ValueError(
                f"degradation: unit {self.unit.call} gives test image {row} {int(counts[row])} groups and image 0 "
                f"{int(counts[0])}, expected the same number in each; use unit patch, or metric "
                "morf"
            )
        return int(counts[0])


def _probes(point: Point) -> dict[str, Any]:
    if point.x != int(point.x):
        raise ValueError(
            f"degradation: fractions hold {point.x}, but it counts patches; set 'patches' and 'step' instead"
        )
    probes: dict[str, Any] = {"clean": point.clean()}
    for order in _WAYS:
        post = () if order == "random" else point.post
        probes[order] = Degrade(order, int(point.x), point.imputer, post, point.unit) if point.x else point.clean()
    return probes


def _values(scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    after = {order: value_of(scores, order, "probability") for order in _WAYS}
    return {
        "probability": after["most_first"],
        "drop": scores["clean"].values["probability"].astype(np.float64) - after["most_first"],
        "gain": gap(scores, "least_first", "most_first", "probability"),
        "probability_least_first": after["least_first"],
        "probability_random": after["random"],
    }
