"""A probe on a block of the test images, for a study that measures in rounds."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from efface.base import draws
from efface.metrics.probes.case import Case
from efface.metrics.probes.description import describe
from efface.metrics.probes.probe import Description, Needs, Probe
from efface.store.results import Score
from efface.training.loop import TrainingSettings


@dataclass(frozen=True)
class Block:
    """A probe of the images `start` to `stop` (exclusive) in the order of `image_order`.

    Its score has one value for each of these images, in that order. Blocks of a whole split together give the values of
    the probe itself.

    probe: a probe with `Needs(blocks=True)`.
    """

    probe: Probe
    start: int
    stop: int

    @property
    def needs(self) -> Needs:
        return self.probe.needs

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:
        """Return the forward passes of the probe for the block's images alone."""
        return self.probe.cost({**images, "test": self.stop - self.start}, training)

    def identity(self) -> dict[str, Any]:
        """Return what the score depends on. The order of the images follows from the seed and their number."""
        return {"block": [self.start, self.stop]} | self.probe.identity()

    def describe(self) -> Description:
        """Return the description of the probe."""
        return describe(self.probe)

    def __call__(self, case: Case) -> Score:
        rows = image_order(case.seed, len(case.data["test"]))[self.start : self.stop]
        found = self.probe(replace(case, rows=rows))
        for name, values in found.values.items():
            if len(values) != len(rows):
                raise ValueError(
                    f"the probe {type(self.probe).__name__} states Needs(blocks=True), but its score '{name}' has "
                    f"{len(values)} values for a block of {len(rows)} images; it must score the images of "
                    "case.test_rows alone, or state blocks=False"
                )
        return found


def whole_of(probe: Probe) -> Probe:
    """Return the probe of which this one measures a block, or the probe itself."""
    return probe.probe if isinstance(probe, Block) else probe


def image_order(seed: int, images: int) -> Int[Tensor, " images"]:
    """Return the row numbers of the test images in the order in which rounds use them. seed: that of the study."""
    return draws.seeds_of(f"{seed} rounds", torch.arange(images)).argsort(stable=True)
