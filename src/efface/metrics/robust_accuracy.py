"""Robust accuracy: accuracy on the worst images that an attack finds nearby."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from efface.base.types import Images, Targets
from efface.metrics.formula import Metric
from efface.metrics.probes import Case, Needs
from efface.metrics.shared.effects import on_test_images, seeds_for
from efface.plug.call import Call
from efface.plug.shared_settings import with_settings_of
from efface.store.results import Score
from efface.training.attack import Keep, Loss, Norm, Start, check_pgd, pgd
from efface.training.loop import TrainingSettings

_EPS = (0.0, 0.25, 0.5, 1.0)


@with_settings_of(pgd, but=("seeds",))
def robust_accuracy(
    *, norm: Norm = "l2", eps: list[float | int] | tuple[float | int, ...] = _EPS, **attack: Any
) -> Metric:
    """Share of test images that the network classifies right after an attack, over the attack's size.

    It describes the network, not a map. The attack is `pgd` on the true class. At 0 it is the accuracy on the images
    themselves, with the probe of the clean images. An attack gives a lower bound of the damage: a network whose
    gradient is uninformative seems robust. Check whether more steps, restarts or `keep: best` find more.

    norm: linf or l2, of the change of an image in [0, 1].
    eps: sizes of the attack, each a point, at least 0. For linf at most 1: 8/255 is 0.031.
    step, steps, start, restarts, keep: as in `pgd`. A point costs steps x restarts gradients of each image.
    loss: as in `pgd`, without targeted. An attack on one class misses the others, so a network seems more robust.

    Source: Madry et al. 2018 (arXiv:1706.06083); sizes and steps of Shah, Jain & Netrapalli 2021 (arXiv:2102.12781),
        who take 5 steps on CIFAR-10.
    """
    if not eps:
        raise ValueError("robust_accuracy: eps is empty; expected sizes such as [0, 0.25, 0.5, 1]")
    sizes = tuple(sorted({float(size) for size in eps}))
    for size in sizes:
        check_pgd(norm=norm, eps=size, **attack)
    return Metric(
        probes=lambda point: {"attacked": Attacked(point.x, norm, **attack) if point.x > 0 else point.clean()},
        value=lambda scores: {"accuracy": scores["attacked"].values["accuracy"].astype(np.float64)},
        direction={"accuracy": "higher"},
        ranges={"accuracy": (0.0, 1.0)},
        sample="images",
        uses=frozenset(),
        caption="Each image moves by at most eps to where the network's loss is largest. A network stays right if its "
        "predictions rest on evidence that such a change cannot hide.",
        family="robustness",
        axis="eps",
        point_settings="'eps'",
        points_for=lambda _shape: sizes,
        summary="mean",
        subject="network",
        phrase="clean and robust accuracy",
    )


@dataclass(frozen=True)
class Attacked:
    """Return whether each test image is classified right after an attack on its true class."""

    eps: float
    norm: Norm
    step: float | None
    steps: int
    start: Start
    restarts: int
    keep: Keep
    loss: Loss = "untargeted"

    needs = Needs(maps=False)
    explains = "true"

    @property
    def attack(self) -> Call:
        """The attack with its settings."""
        names = ["eps", "norm", "step", "steps", "start", "restarts", "keep"]
        names += ["loss"] if self.loss != "untargeted" else []  # older results without this setting keep their keys
        return Call(call="efface.training.attack.pgd", kwargs={name: getattr(self, name) for name in names})

    def check(self, network: nn.Module, images: Images) -> None:
        """Raise ValueError if the network has one class, or if the loss is for two classes and the network has more."""
        none = torch.zeros(1, dtype=torch.int64, device=images.device)
        pgd(network, images[:1], none, norm=self.norm, eps=self.eps, steps=1, loss=self.loss, seeds=none)

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes. A gradient of the image counts two: one forward and one backward."""
        return float(images["test"] * self._passes())

    def _passes(self) -> int:
        return 2 * self.steps * self.restarts + 1

    def identity(self) -> dict[str, Any]:
        """Return the settings and the source of the attack, which no other probe uses."""
        return {"probe": "attacked", "attack": self.attack.identity()}

    def __call__(self, case: Case) -> Score:
        def right(network: nn.Module, indices: Tensor, images: Images, targets: Targets) -> Tensor:
            worst = self.attack(network, images, targets, seeds=seeds_for(case, "attack", indices))
            with torch.no_grad():
                return (network(worst).argmax(1) == targets).cpu()

        return Score({"accuracy": torch.cat(on_test_images(case, right, cost=float(self._passes()))).numpy()})
