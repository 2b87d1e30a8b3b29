"""What a training tells its log. What it does not keep itself is computed only if there is a log."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from efface.base.types import Targets

Log = Callable[[str, float, int], None]
"""Function that is called with a name, a value and a step: the number of the epoch, or of the batch for `batch_loss`.
Both count from 1 through the whole training."""


class Told:
    """Tells a log the curves of a training.

    Each epoch has the means that the training keeps, `training_accuracy` and `validation_loss`. Each batch has
    `batch_loss`. The values of batches stay on the device until the epoch ends. Without a log nothing is computed.

    log: None: nobody listens. steps: batches of an epoch. stops: whether the training itself needs the share of its
        images that are classified right.
    """

    def __init__(self, log: Log | None, steps: int, *, stops: bool) -> None:
        self._log, self._steps, self._stops = log, steps, stops
        self._losses: list[Tensor] = []

    @property
    def wants_accuracy(self) -> bool:
        """Whether a step has to return the share of its images that are classified right."""
        return self._stops or self._log is not None

    def batch(self, loss: Tensor) -> None:
        """Note the loss of a batch, with all terms, before its step."""
        if self._log is not None:
            self._losses.append(loss)

    def epoch(
        self, epoch: int, means: Mapping[str, float], validation_loss: Callable[[], float] | None
    ) -> dict[str, float]:
        """Tell an epoch, from 0, and return the means that the training keeps.

        means: of the epoch. validation_loss: returns the mean loss of the validation images; None: there are none.
        """
        kept = {name: value for name, value in means.items() if name != "training_accuracy" or self._stops}
        if self._log is None:
            return kept
        for at, loss in enumerate(torch.stack(self._losses).tolist() if self._losses else [], 1):
            self._log("batch_loss", loss, epoch * self._steps + at)
        self._losses.clear()
        for name, value in means.items():
            self._log(name, value, epoch + 1)
        if validation_loss is not None:
            self._log("validation_loss", validation_loss(), epoch + 1)
        return kept


def loss_on(loss_of: Callable[[Tensor, Tensor], Tensor], logits: Tensor, targets: Targets) -> float:
    """Return the loss of all these logits n k at once, on the device of the targets, without terms of regularisers."""
    with torch.inference_mode():
        return float(loss_of(logits.to(targets.device), targets))


def against_a_lost_loss(network: nn.Module) -> str:
    """Return what helps against a loss that is no number."""
    low = next(
        (weight.dtype for weight in network.parameters() if weight.dtype in (torch.float16, torch.bfloat16)), None
    )
    if low is None:
        return "lower the learning rate in fit.optimizer"
    kind = str(low).removeprefix("torch.")
    return f"the network's weights are {kind}, which is too coarse to train; load them as float32"
