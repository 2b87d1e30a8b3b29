"""Adversarial distance: how far an image must move until the network gives it another class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.types import Images, Targets
from efface.metrics.formula import Metric, values_of
from efface.metrics.probes import Case, Needs
from efface.metrics.shared.effects import on_test_images
from efface.metrics.shared.orders import UNIT
from efface.plug.call import Call
from efface.store.results import Score
from efface.training.attack import Norm, check_minimal, minimal
from efface.training.loop import TrainingSettings

_STEP = {"l2": 0.05, "linf": 1 / 255}


def adversarial_distance(*, norm: Norm = "l2", step: float | None = None, steps: int = 100) -> Metric:
    """Distance at which a test image loses its class, along steps up the log odds against it: a mean over images.

    It describes the network, not a map. The attack is `minimal` on the true class. A misclassified image has no
    distance and no part in `unchanged`. An image that keeps its class has no distance, and counts in `unchanged`, the
    share of correct images that keep their class. Read both values, since the mean is over the images that lost their
    class. The distance is an upper bound: a network whose gradient is uninformative seems robust. If no image moves,
    there is no value.

    norm: linf or l2, of the change of an image in [0, 1].
    step: length of a step in the norm, above 0. Default: 0.05 for l2, 1/255 for linf. Distances are too long by up to a
        step.
    steps: largest number of steps, at least 1. Each costs a gradient of the images that are still right.

    Source: the minimal attack of the released code of Shah, Jain & Netrapalli 2021 (arXiv:2102.12781); the mean as in
        Moosavi-Dezfooli, Fawzi & Frossard 2016 (arXiv:1511.04599).
    Differs: not divided by the length of the image, as the latter do; images that are wrong anyway do not count.
    """
    length = _STEP.get(norm, 1.0) if step is None else float(step)
    check_minimal(norm, length, steps)
    return Metric(
        probes=lambda _: {"moved": Moved(norm, length, steps)},
        value=values_of("moved", "distance", "unchanged"),
        direction={"distance": "higher", "unchanged": "higher"},
        ranges={"unchanged": UNIT},
        sample="images",
        uses=frozenset(),
        caption="Each image moves, step by step, until the network gives it another class. The larger the distance, "
        "the less a small change of an image can change the prediction.",
        family="robustness",
        axis="",
        subject="network",
    )


@dataclass(frozen=True)
class Moved:
    """Distance at which each test image loses its class, and whether it keeps it; NaN for misclassified images."""

    norm: Norm
    step: float
    steps: int

    needs = Needs(maps=False)
    explains = "true"

    @property
    def attack(self) -> Call:
        """The attack with its settings."""
        names = ("norm", "step", "steps")
        return Call(call="efface.training.attack.minimal", kwargs={name: getattr(self, name) for name in names})

    def check(self, network: nn.Module, images: Images) -> None:
        """Raise ValueError if the network has one class."""
        none = torch.zeros(1, dtype=torch.int64, device=images.device)
        minimal(network, images[:1], none, norm=self.norm, step=self.step, steps=1)

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes, if no image loses its class before the last step."""
        return float(images["test"] * (2 * self.steps + 1))

    def identity(self) -> dict[str, Any]:
        """Return the settings and the source of the attack."""
        return {"probe": "moved", "attack": self.attack.identity()}

    def __call__(self, case: Case) -> Score:
        results = on_test_images(case, self._moved, cost=2.0 * self.steps + 1)
        distances, kept = torch.cat(results, 1).numpy()
        return Score({"distance": distances, "unchanged": kept})

    def _moved(self, network: nn.Module, _rows: Tensor, images: Images, targets: Targets) -> Float[Tensor, "2 n"]:
        moved = self.attack(network, images, targets)
        with torch.no_grad():
            unchanged = network(moved).argmax(1) == targets
        change = (moved - images).flatten(1).double()
        lengths = change.norm(dim=1) if self.norm == "l2" else change.abs().amax(1)
        wrong = ~unchanged & (lengths == 0)  # the attack does not move misclassified images
        distances = lengths.masked_fill(unchanged | wrong, torch.nan)
        return torch.stack([distances, unchanged.double().masked_fill(wrong, torch.nan)]).cpu()
