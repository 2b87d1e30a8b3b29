"""The two ways to score an erased image: with the given network, or with a new network trained on such images."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, StoredImages, Targets
from efface.erase.masking import to_float
from efface.execute.task_status import already_there
from efface.metrics.probes.case import Case
from efface.metrics.probes.erasure import Erasure, erased_batches, fills_averaged
from efface.metrics.probes.probe import Needs
from efface.metrics.probes.tokens import check_emptied, drops_tokens, token_logits
from efface.models.evaluation import evaluating_fast
from efface.models.memory import with_smaller_batches
from efface.store.arrays import read_rows
from efface.store.results import Score
from efface.training.loop import Precision, TrainingResult, TrainingRows, TrainingSettings, predict
from efface.training.loop import train as train_network


@dataclass(frozen=True)
class Perturb:
    """Score of the given network on erased test images: one point of MoRF (most relevant first) or LeRF."""

    erasure: Erasure

    can_drop_tokens = True

    @property
    def needs(self) -> Needs:
        return Needs(maps=self.erasure.needs_map, blocks=True)

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes."""
        return float(images["test"] * fills_averaged(self.erasure.imputer, self.erasure.fraction))

    def identity(self) -> dict[str, Any]:
        return {"probe": "perturb"} | self.erasure.identity()

    def check(self, network: nn.Module, images: Images) -> None:
        """Raise ValueError if all tokens are dropped and the network has no logits then."""
        if self.erasure.fraction == 1 and drops_tokens(self.erasure.imputer):
            check_emptied(network, images)

    def __call__(self, case: Case) -> Score:
        count = fills_averaged(self.erasure.imputer, self.erasure.fraction)
        classes = (case.data["test"].targets[case.test_rows], case.target_classes[case.test_rows])
        if drops_tokens(self.erasure.imputer):
            return score_of(token_logits(case, self.erasure), *classes)
        scores = [
            score_of(erased_logits(case, case.network, self.erasure, "fp32", sample=sample), *classes)
            for sample in range(count)
        ]
        if count == 1:
            return scores[0]
        return Score({name: np.mean([score.values[name] for score in scores], 0) for name in scores[0].values})


@dataclass(frozen=True)
class Retrain:
    """Score of a fresh network, trained on erased images, on equally erased test images: a point of ROAR or KAR.

    The same repeat has the same initial weights and order of images for every method and fraction, so methods can be
    compared in pairs.
    """

    erasure: Erasure
    repeat: int

    @property
    def needs(self) -> Needs:
        return Needs(maps=self.erasure.needs_map, network=False)

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:
        """Forward passes. A training step counts three: forward, and about two for backward."""
        return float(3 * epochs_of(training) * images["train"] + images["test"])

    def identity(self) -> dict[str, Any]:
        return {"probe": "retrain", "repeat": self.repeat} | self.erasure.identity()

    def __call__(self, case: Case) -> Score:
        test, settings = case.data["test"], case.training
        epoch_cost = 3.0 * len(case.data["train"])
        trained = train_on_erased(
            case,
            self.erasure,
            settings,
            seed=draws.seed_of(f"{case.seed} retrain {self.repeat}"),
            fingerprint=case.checkpoint.stem if case.checkpoint else "",
            first_draw=self.repeat * settings.epochs,
            epoch_cost=epoch_cost,
        )
        with already_there():
            case.advance((settings.epochs - len(trained.losses)) * epoch_cost)  # the epochs that `fit.stop` skipped
        logits = erased_logits(case, trained.network, self.erasure, settings.precision)
        score = score_of(logits, test.targets, test.targets)
        if settings.stop is None:
            return score
        return Score({**score.values, "epochs": np.array([len(trained.losses)], np.float64)})


def train_on_erased(
    case: Case,
    erasure: Erasure,
    settings: TrainingSettings,
    *,
    seed: int,
    fingerprint: str,
    epoch_cost: float,
    first_draw: int = 0,
) -> TrainingResult:
    """Train the case's fresh network on its erased training images.

    The training keeps its state in the case's checkpoint, writes its scalars to the case's log, and reports its
    progress to the case.

    fingerprint: text that a checkpoint must have, so that the training resumes from it.
    epoch_cost: progress of one epoch, in the units of the task.
    first_draw: index of the first draw of a ranking that is redrawn each epoch.
    ValueError: as `efface.training.loop.train`.
    """
    split = case.data["train"]
    return train_network(
        case.build,
        erased_batches(case, "train", erasure, width=settings.crop, whole=True, first_draw=first_draw),
        TrainingRows(split.training, split.validation),
        split.targets,
        settings,
        seed=seed,
        device=case.device,
        checkpoint=case.checkpoint,
        fingerprint=fingerprint,
        log=case.log,
        advance=case.advance,
        epoch_cost=epoch_cost,
    )


def epochs_of(training: TrainingSettings | None) -> int:
    """Return the number of epochs of a training. ValueError: the study has no training settings."""
    if training is None:
        raise ValueError("a probe trains the network, but the study has no 'fit'; add it, or drop the metric")
    return training.epochs


def erased_logits(case: Case, network: nn.Module, erasure: Erasure, precision: Precision, *, sample: int = 0) -> Tensor:
    """Return the logits of a network for the erased test images, in smaller batches if memory runs out.

    sample: number of the fill, for a fill whose scores are averaged over several.
    """
    split = case.data["test"]
    batches = erased_batches(case, "test", erasure, width=0, whole=False, sample=sample)
    every = case.test_rows
    first = to_float(read_rows(split.images, every[:1]).to(case.device))

    def answers(max_batch: int) -> Tensor:
        with evaluating_fast(network, first, allowed=precision == "fp32") as fast:
            return predict(fast, _counted(batches(every, max_batch, 0), case.advance), precision=precision)

    return with_smaller_batches(answers, case.max_batch)


def score_of(logits: Float[Tensor, "n classes"], targets: Targets, asked: Targets) -> Score:
    """Return for each image whether it is classified right, and the probability and logit of the given class."""
    where = asked.cpu()[:, None]
    return Score(
        {
            "accuracy": (logits.argmax(1) == targets.cpu()).numpy(),
            "probability": logits.softmax(1).gather(1, where)[:, 0].numpy(),
            "logit": logits.gather(1, where)[:, 0].numpy(),
        }
    )


def _counted(batches: Iterator[StoredImages], advance: Callable[[float], None]) -> Iterator[StoredImages]:
    for batch in batches:
        yield batch
        advance(float(len(batch)))
