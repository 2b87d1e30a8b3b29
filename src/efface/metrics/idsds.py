"""IDSDS, in-domain single deletion: `single_deletion` of a network that was fine-tuned on images without a cell."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Maps, Seeds, TargetScore
from efface.erase.masking import to_float
from efface.erase.post import apply_post
from efface.execute.task_status import already_there
from efface.metrics.formula import Metric
from efface.metrics.probes import Case, Description, Needs
from efface.metrics.probes.description import text
from efface.metrics.shared.cells import by_cell, cell_labels, cell_of, cell_sums, check_grid
from efface.metrics.shared.effects import check_positive, identity_of
from efface.metrics.shared.fine_tuning import fine_tuned
from efface.metrics.single_deletion import MOST_CELLS, deletion_falls, single_deletion
from efface.plug.call import Call
from efface.store.arrays import read_rows
from efface.store.results import Score
from efface.training.loop import TrainingSettings


def idsds(
    *,
    cells: int = 4,
    score: TargetScore = "logit",
    epochs: int = 30,
    lr: float = 0.001,
    momentum: float = 0.9,
    decay: float = 1e-4,
    step: int = 10,
    batch_size: int = 256,
) -> Metric:
    """Rank correlation of the map's sum over a cell with the fall of the score without it, for a fine-tuned network.

    It is `single_deletion` for a network that knows images without a cell: the given network, fine-tuned on training
    images of which half lose one random cell, another one in each epoch. The fill is `imputer`, by default the data
    set's mean colour, which is 0 after normalisation. All methods share the fine-tuned network and its scores, and each
    method explains the fine-tuned network. The explained class is that of the given network.

    A value is missing for a map whose pixels are all equal, and for an image whose score falls equally without each
    cell. The page counts these images.

    cells: cells across and down, 2 to 32. An image costs one forward pass for each cell, and one more, and a map for
        each method.
    score: score of the explained class: logit, log_probability, probability or loss (cross entropy).
    epochs: epochs of the fine-tuning from the given weights, at least 1, once in a run.
    lr: learning rate of SGD, above 0.
    momentum: momentum of SGD, from 0 to below 1.
    decay: weight decay, at least 0.
    step: epochs after which the learning rate falls to a tenth, at least 1.
    batch_size: images in a step, at least 1.

    Crop, flip, augmentations, loss and number format are those of the study's `fit`.

    Source: Hesse, Schaub-Meyer & Roth 2024 (arXiv:2407.11910).
    Differs: a random crop comes after the deletion, so it may move the cell; an image without a value is counted, where
        the code leaves it out; the fill is the mean of this data set, where the code's zero after normalisation is that
        of ImageNet.
    """
    check_grid("idsds", "cells", cells, MOST_CELLS)
    check_positive("idsds", epochs=epochs, lr=lr, step=step, batch_size=batch_size)
    if not 0 <= momentum < 1:
        raise ValueError(f"idsds: momentum is {momentum}; expected a number from 0 to below 1: change it")
    if not decay >= 0:
        raise ValueError(f"idsds: decay is {decay}; expected a number of at least 0: change it")
    tuning = FineTuning(epochs, lr, momentum, decay, step, batch_size)
    return replace(
        single_deletion(cells=cells, score=score),
        probes=lambda point: {
            "falls": TunedDeletions(cells, score, point.imputer, tuning),
            "sums": TunedSums(cells, point.post, point.imputer, tuning),
        },
        caption="The network is fine-tuned on images of which half lack a cell of a grid, so that such images are not "
        "strange to it, and the maps are made anew for it. Then each cell is erased alone. The larger the sum of a "
        "truthful map over a cell, the further the score falls without it.",
        needs_fit=True,
    )


@dataclass(frozen=True)
class FineTuning:
    """Settings of the fine-tuning."""

    epochs: int
    lr: float
    momentum: float
    decay: float
    step: int
    batch_size: int

    def of(self, fit: TrainingSettings) -> TrainingSettings:
        """Return these settings, and those of the study's `fit` for all others."""
        sgd = {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.decay}
        return fit.model_copy(
            update={
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "optimizer": Call(call="torch.optim.SGD", kwargs=sgd),
                "schedule": Call(call="torch.optim.lr_scheduler.StepLR", kwargs={"step_size": self.step}),
                "schedule_each": "epoch",
                "keep": "last",
                "stop": None,
            }
        )

    def network(self, case: Case, cells: int, imputer: Call) -> nn.Module:
        """Return the fine-tuned network, which is trained once in a run."""
        h, w = case.data["test"].shape[1:]
        labels = cell_labels(case.network, torch.empty(1, 1, h, w), cells, tokens=False).to(case.device)

        def removed(_images: Images, seeds: Seeds) -> Bool[Tensor, "n h w"]:
            return lacking_cells(cells, seeds)[:, labels]

        return fine_tuned(case, "idsds", removed, imputer, self.of(case.training), {"cells": cells})


@dataclass(frozen=True)
class TunedDeletions:
    """Fall of the fine-tuned network's score without each single cell. All methods share it."""

    cells: int
    score: TargetScore
    imputer: Call
    tuning: FineTuning

    needs = Needs(maps=False, training=True)

    def identity(self) -> dict[str, object]:
        """Return its fields, those of the fine-tuning among them."""
        return identity_of(self) | {"tuning": vars(self.tuning)}

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes. A training step counts three."""
        return float(3 * self.tuning.epochs * images["train"] + (self.cells**2 + 1) * images["test"])

    def describe(self) -> Description:
        return Description(unit=cell_of(self.cells), imputer=text(self.imputer))

    def check(self, network: nn.Module, images: Images) -> None:
        """Raise ValueError if the grid has more cells across than the images have pixels."""
        cell_labels(network, images, self.cells, tokens=False, setting="cells")

    def __call__(self, case: Case) -> Score:
        network = self.tuning.network(case, self.cells, self.imputer)
        with already_there():  # or its steps were told by the training
            case.advance(3.0 * self.tuning.epochs * len(case.data["train"]))
        return Score(by_cell(deletion_falls(case, network, self.cells, self.score, self.imputer)))


@dataclass(frozen=True)
class TunedSums:
    """The sum of a map of the fine-tuned network over each cell, as `CellSums`."""

    cells: int
    post: tuple[Call, ...]
    imputer: Call
    tuning: FineTuning

    needs = Needs(method=True, training=True)
    map_values = "pixel"

    def identity(self) -> dict[str, object]:
        """Return its fields, those of the fine-tuning among them."""
        return identity_of(self) | {"tuning": vars(self.tuning)}

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes, if a map costs one, without the fine-tuning, which `TunedDeletions` counts."""
        return float(images["test"])

    def describe(self) -> Description:
        return Description(unit=cell_of(self.cells))

    def __call__(self, case: Case) -> Score:
        network, explain = self.tuning.network(case, self.cells, self.imputer), case.explain

        def maps(indices: Int[Tensor, " n"]) -> Maps:
            images = to_float(read_rows(case.data["test"].images, indices).to(case.device))
            return apply_post(
                explain(network, images, case.target_classes[indices].to(case.device), indices), self.post
            )

        return cell_sums(case, self.cells, maps)


def lacking_cells(grid: int, seeds: Seeds) -> Bool[Tensor, "n cells"]:
    """Return the one cell that an image lacks, for half of the images at random; none for the others."""
    cells, (lacks, which) = grid**2, draws.uniform(seeds, (2,)).unbind(1)
    lost = (which * cells).long().clamp_max(cells - 1)
    return (torch.arange(cells, device=seeds.device) == lost[:, None]) & (lacks < 0.5)[:, None]
