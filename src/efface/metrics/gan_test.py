"""GAN-test: whether a second network recognises the class of the images that the first network generates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from efface.base.shown import shown
from efface.base.types import Images, Targets
from efface.metrics.formula import Metric, values_of
from efface.metrics.probes import Case, Needs
from efface.metrics.shared.effects import identity_of
from efface.models.evaluation import evaluating_fast
from efface.models.memory import blocks
from efface.store.results import Score
from efface.training.generate import Sampling
from efface.training.loop import TrainingSettings


def gan_test(
    *, count: int = 1000, steps: int = 500, lr: float = 0.1, decay: float = 0.01, deviation: float = 0.2
) -> Metric:
    """Share of the network's samples of a class that the study's second network assigns to that class.

    A sample is made by ascent on the logit of its class, from noise, with decay to grey. Only the network's input
    gradient is used, so the share shows how much of the data the network has learnt. The samples are those of the stage
    `samples`: the same settings give the same file.
    share: 1 if the second network assigns the sample to its class.
    probability: the second network's probability of that class.
    own_share: the share for the first network. It shows whether the ascent reached the class.

    count: number of samples, at least 1. Sample i has the class of test row i, starting again after the last row.
        Choose enough to cover all classes: rows sorted by class begin with one class.
    steps: steps of the ascent, at least 1. Each costs a forward and a backward pass of all samples.
    lr: length of a step, above 0.
    decay: pull towards grey, at least 0.
    deviation: standard deviation of the initial noise, in units of [0, 1].

    Source: Srinivas & Fleuret 2021 (arXiv:2006.09128), after Shmelkov, Schmid & Alahari 2018 (arXiv:1807.09499).
    Differs: exactly `count` samples, where the code fills the last batch; each has noise of its own seed.
    """
    settings = _sampling(count=count, steps=steps, lr=lr, decay=decay, deviation=deviation)
    return Metric(
        probes=lambda _: {"classified": ClassifiedSamples(**settings.model_dump())},
        value=values_of("classified", "share", "probability", "own_share"),
        direction={"share": "higher", "probability": "higher", "own_share": "none"},
        ranges=dict.fromkeys(("share", "probability", "own_share"), (0.0, 1.0)),
        sample="images",
        uses=frozenset(),
        caption="The network generates images of the classes from its input gradient alone, and a second network "
        "classifies them. If the network has learnt the classes, the second network recognises them.",
        axis="",
        subject="network",
    )


@dataclass(frozen=True)
class ClassifiedSamples:
    """Predictions of the second network and of the network itself for each sample."""

    count: int
    steps: int
    lr: float
    decay: float
    deviation: float

    explains = "true"

    @property
    def needs(self) -> Needs:
        return Needs(maps=False, second_network=True, samples=self.sampling)

    @property
    def sampling(self) -> Sampling:
        """Settings of the samples."""
        return Sampling(count=self.count, steps=self.steps, lr=self.lr, decay=self.decay, deviation=self.deviation)

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes. The samples exist already."""
        return 2.0 * self.count

    def identity(self) -> dict[str, Any]:
        return identity_of(self)

    def __call__(self, case: Case) -> Score:
        images, targets = case.samples(self.sampling)
        second = answers(case, case.second_network(), images, targets)
        own = answers(case, case.network, images, targets)
        return Score({"share": second[0], "probability": second[1], "own_share": own[0]})


def answers(case: Case, network: nn.Module, images: Images, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
    """Return for each image whether the network assigns it to its target (0 or 1), and the target's probability."""
    parts = []
    with evaluating_fast(network, images[:1].to(case.device)) as fast, torch.no_grad():
        for block in blocks(len(images), case.max_batch):
            parts.append(fast(images[block].to(case.device)).double().cpu())
            case.advance(float(len(parts[-1])))
    logits = torch.cat(parts)
    if logits.shape[1] <= int(targets.max()):
        raise ValueError(
            f"gan_test: {type(network).__name__} has {logits.shape[1]} classes, but the samples are of class "
            f"{int(targets.max())}; give the second network as many classes as the data have"
        )
    right = (logits.argmax(1) == targets).double().numpy()
    return right, logits.softmax(1).gather(1, targets[:, None])[:, 0].numpy()


def _sampling(**settings: Any) -> Sampling:
    try:
        return Sampling.model_validate(settings)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}, found {shown(e['input'])}" for e in error.errors()
        ]
        raise ValueError(f"gan_test: {'; '.join(faults)}") from None
