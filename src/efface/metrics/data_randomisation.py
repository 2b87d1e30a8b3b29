"""Data randomisation: whether the maps differ from those of a network that learnt random labels by heart.

Source: Adebayo, Gilmer, Muelly, Goodfellow, Hardt & Kim 2018, section 5 (arXiv:1810.03292).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from efface.base import draws
from efface.base.types import Targets
from efface.execute.task_status import already_there
from efface.metrics.formula import Metric, values_of
from efface.metrics.probes import Case, Description, Erasure, Needs, erased_batches
from efface.metrics.probes.score import epochs_of
from efface.metrics.shared.similarity import BETTER, NAMES, RANGES, compared, compares
from efface.plug.call import Call
from efface.store.arrays import read_rows
from efface.store.keys import versions
from efface.store.results import Score
from efface.training.loop import TrainingRows, TrainingSettings, predict
from efface.training.loop import train as train_network


def data_randomisation(*, epochs: int | None = None) -> Metric:
    """Similarity of the maps with those of a network trained on permuted labels.

    Spearman and SSIM of the channel-summed maps, signed and absolute; `post` is not used. The second network is trained
    once in a run with the study's settings, on the training images with their labels shuffled among them. The explained
    class is that of the original network. `memorised` is the second network's accuracy on the shuffled labels. Near
    chance it has learnt nothing, and the test is that of an untrained network.

    epochs: epochs of that training, at least 1. Default: the study's. Learning labels by heart needs more epochs.

    Source: Adebayo et al. 2018, section 5 (arXiv:1810.03292).
    Differs: the last epoch's weights are kept, whatever the study's fit says: there is nothing to validate.
    """
    if epochs is not None and epochs < 1:
        raise ValueError(f"data_randomisation: epochs is {epochs}, expected a whole number of at least 1; raise it")
    return Metric(
        probes=lambda point: {"alike": PermutedLabels(epochs, point.imputer)},
        value=values_of("alike", *NAMES, "memorised"),
        direction={**BETTER, "memorised": "none"},
        ranges=RANGES,
        sample="images",
        uses=frozenset({"imputer"}),
        caption="A second network is trained on shuffled labels, and the method explains it. A truthful map shows what "
        "a network has learnt, so it changes.",
        family="randomisation",
        axis="",
        needs_fit=True,
    )


def permuted(targets: Targets, *, seed: int) -> Int[Tensor, " n"]:
    """Return the same labels, shuffled among the images."""
    order = draws.keys(torch.tensor([seed]), len(targets))[0].argsort()
    return targets[order.to(targets.device)]


@dataclass(frozen=True)
class PermutedLabels:
    """The maps of a network trained on permuted labels, compared with the stored maps.

    imputer: fills the border that the study's fit crops from.
    """

    epochs: int | None
    imputer: Call

    needs = Needs(method=True, training=True)

    def describe(self) -> Description:
        return compares(self)

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:
        """Forward passes of the training, and maps. Only the first probe of a run trains."""
        epochs = self.epochs or epochs_of(training)
        return float(3 * epochs * images["train"] + images["test"])

    def identity(self) -> dict[str, Any]:
        return {"probe": "permuted labels", "epochs": self.epochs, "imputer": self.imputer.identity()}

    def __call__(self, case: Case) -> Score:
        explain, settings = case.explain, case.training
        settings = settings.model_copy(update={"keep": "last", "epochs": self.epochs or settings.epochs})
        what = self.identity() | versions("metric.data_randomisation")
        kept = case.once("permuted-labels", what, lambda: self._train(case, settings))
        with already_there():  # or its steps were told by the training
            case.advance(3.0 * settings.epochs * len(case.data["train"]))
        network = case.build().to(case.device).eval()
        network.load_state_dict({name[8:]: value for name, value in kept.items() if name.startswith("network.")})
        score = compared(case, lambda indices, images, classes: explain(network, images, classes, indices))
        memorised = np.full(score.n, float(kept["memorised"]), np.float32)
        return Score({**score.values, "memorised": memorised})

    def _train(self, case: Case, settings: TrainingSettings) -> dict[str, Tensor]:
        """Return the weights, and the accuracy on the permuted labels."""
        train, seed = case.data["train"], draws.seed_of(f"{case.seed} permuted labels")
        targets = permuted(train.targets, seed=seed)
        whole = Erasure("most_first", 0.0, self.imputer)
        trained = train_network(
            case.build,
            erased_batches(case, "train", whole, width=settings.crop, whole=True),
            TrainingRows(train.training),
            targets,
            settings,
            seed=seed,
            device=case.device,
            log=case.log,
        )
        parts = (read_rows(train.images, indices).to(case.device) for indices in train.training.split(case.max_batch))
        logits = predict(trained.network, parts, precision=settings.precision)
        right = logits.argmax(1) == targets[train.training.to(targets.device)].cpu()
        weights = {f"network.{name}": value for name, value in trained.network.state_dict().items()}
        return weights | {"memorised": right.float().mean()}
