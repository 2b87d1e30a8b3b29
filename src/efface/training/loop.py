"""The training loop, used for the first training and for every retraining.

All random numbers of an epoch (order, crops, flips, augmentations, dropout) depend on (seed, epoch). A training that is
killed and resumed from its checkpoint therefore ends at the same weights as an uninterrupted one.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Targets
from efface.erase.batches import Batches
from efface.erase.masking import to_float
from efface.execute import task_status
from efface.execute.process_group import Member, member
from efface.models.batch_norm import single_images_repaired
from efface.models.memory import at_once, memory_for_a_step, with_smaller_batches
from efface.training.batch import Means, augmented, crop
from efface.training.checkpoint import Training
from efface.training.data_parallel import copy_first, from_first, parts_of, places_of
from efface.training.settings import Precision, Stop, TrainingSettings
from efface.training.several import asked_of, devices_of, heard, trained_together
from efface.training.step import loss_function, step
from efface.training.told import Log, Told, against_a_lost_loss, loss_on

__all__ = [
    "Log",
    "Precision",
    "Stop",
    "TrainingResult",
    "TrainingRows",
    "TrainingSettings",
    "predict",
    "train",
    "try_step",
]


@dataclass(frozen=True)
class TrainingRows:
    """Rows that the network is trained on, and rows that choose the epoch."""

    training: Int[Tensor, " n"]
    validation: Int[Tensor, " m"] | None = None


@dataclass(frozen=True)
class TrainingResult:
    """A trained network in evaluation mode, its mean loss and validation accuracy of each epoch, and the epoch kept.

    terms: further means of each epoch. With regularisers: `classification` (the loss without them) and each term by its
        name, without its weight. With an attack: `attacked_accuracy`. With a stop by accuracy: `training_accuracy`.
    devices: number of devices that shared the training.
    """

    network: nn.Module
    losses: tuple[float, ...]
    validation: tuple[float, ...]
    epoch: int
    terms: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    devices: int = 1


def train(
    build: Callable[[], nn.Module],
    batches: Batches,
    rows: TrainingRows,
    targets: Targets,
    settings: TrainingSettings,
    *,
    seed: int,
    device: torch.device,
    checkpoint: Path | None = None,
    fingerprint: str = "",
    log: Log | None = None,
    advance: Callable[[float], None] = lambda _: None,
    epoch_cost: float = 1.0,
) -> TrainingResult:
    """Train a fresh network on (erased) images, on as many devices as `fit.devices` says.

    batches: function that yields the images of given rows.
    targets: classes by row number.
    checkpoint: file written after each epoch. A training resumes from it if its fingerprint equals `fingerprint`.
    log: called with the loss, its terms, the training accuracy and those of the validation rows, and each batch's loss.
    advance: called with `epoch_cost` after each epoch.
    ValueError: keep is 'best' without validation rows; the loss is no number; the network has too few classes; an
        augmentation or an attack returns wrong images; or a process of a training on several devices ended.
    """
    if settings.keep == "best" and (rows.validation is None or not len(rows.validation)):
        raise ValueError(
            "fit.keep is 'best', but the data have no validation rows; set data.kwargs.validation, e.g. 0.125"
        )
    if not len(rows.training):
        raise ValueError("fit: the data have no training rows; lower data.kwargs.validation, or raise the limit")
    work = _Work(build, batches, rows, targets, settings, seed, device, checkpoint, fingerprint, epoch_cost)
    own = partial(_trained, work)
    if settings.devices == 1:
        return own(log, advance, None)
    asked = asked_of(settings, rows.training, rows.validation, targets, seed, fingerprint)
    if (me := member()) is not None:
        result = own(*heard(me, asked), me)
        weights = {name: value.cpu() for name, value in result.network.state_dict().items()}
        me.finish((weights, replace(result, network=nn.Identity())))
    if (count := devices_of(settings, device)) == 1:
        return own(log, advance, None)
    images = len(_trained_on(rows.training, settings))
    with task_status.training(settings.epochs, images, cost=epoch_cost, found=0):
        weights, result = trained_together(count, device, asked, log, advance, images)
    with _own_random_state(device):
        network = work.fresh()
    network.load_state_dict(weights)
    return replace(result, network=network.eval(), devices=count)


class _Work(NamedTuple):
    """What `train` is given, without the functions that it reports to."""

    build: Callable[[], nn.Module]
    batches: Batches
    rows: TrainingRows
    targets: Targets
    settings: TrainingSettings
    seed: int
    device: torch.device
    checkpoint: Path | None
    fingerprint: str
    epoch_cost: float

    def fresh(self) -> nn.Module:
        return _fresh(self.build, self.settings, self.seed, self.device)


def _trained(work: _Work, log: Log | None, advance: Callable[[float], None], me: Member | None) -> TrainingResult:
    """Return the network that this process trains, alone or as a member of a group."""
    rows, settings = work.rows, work.settings
    with _own_random_state(work.device):
        network = work.fresh()
        optimizer = settings.optimizer(network.parameters())
        steps = -(-len(_trained_on(rows.training, settings)) // settings.batch_size)
        total = settings.epochs * (steps if settings.schedule_each == "step" else 1)
        schedule = settings.schedule(optimizer, total_steps=total) if settings.schedule else None
        loss_of = loss_function(settings.loss)
        files, writes = (work.checkpoint, work.fingerprint), me is None or me.number == 0
        state = Training(network, optimizer, schedule, *files, writes=writes)
        if me is not None:
            copy_first(chain(network.parameters(), network.buffers()))
        work = work._replace(targets=work.targets.to(work.device))
        told = Told(log, steps, stops=settings.stop is not None and settings.stop.accuracy is not None)
        images = len(_trained_on(rows.training, settings))
        with task_status.training(settings.epochs, images, cost=work.epoch_cost, found=state.epoch):
            for epoch in range(state.epoch, settings.epochs):
                if settings.stop is not None and settings.stop.reached(state):
                    break
                each_step = schedule if settings.schedule_each == "step" else None
                means = _epoch(work, network, optimizer, each_step, loss_of, epoch, told, me)
                if schedule is not None and settings.schedule_each == "epoch":
                    schedule.step()
                validation_loss = None
                if rows.validation is not None and len(rows.validation) and (me is None or me.number == 0):
                    logits = _validated(network, work.batches, rows.validation, settings, epoch)
                    expected = work.targets[rows.validation.to(work.device)]
                    means["validation_accuracy"] = float((logits.argmax(1) == expected.cpu()).float().mean())
                    validation_loss = partial(loss_on, loss_of, logits, expected)
                found = told.epoch(epoch, means, validation_loss)
                state.finish(epoch, found if me is None else from_first(found), best=settings.keep == "best")
                advance(work.epoch_cost)
        state.restore(settings.keep)
    kept = state.best_epoch if state.best else state.epoch - 1
    curves = {name: tuple(values) for name, values in state.terms.items()}
    return TrainingResult(network.eval(), tuple(state.losses), tuple(state.accuracies), kept, curves)


def try_step(
    build: Callable[[], nn.Module],
    images: Images,
    targets: Targets,
    settings: TrainingSettings,
    *,
    device: torch.device,
) -> None:
    """Run the first step of a training on a few images and discard the result. It raises what the training would raise.

    images, targets: on the device.
    """
    with _own_random_state(device):
        network = _fresh(build, settings, 0, device).train()
        optimizer, seeds = settings.optimizer(network.parameters()), draws.seeds_of("trial", torch.arange(len(images)))
        classes = int(targets.max()) + 1
        images = augmented(settings.augment, images, seeds, first=True)
        (part,) = parts_of(len(images), len(images), None)
        step(network, images, targets, classes, settings, optimizer, loss_function(settings.loss), seeds, part)


def predict(network: nn.Module, batches: Iterable[Tensor], *, precision: Precision = "fp32") -> Float[Tensor, "n k"]:
    """Return the logits of the batches, as float32 on the CPU. The network stays in evaluation mode."""
    if any(module.training for module in network.modules()):  # setting the mode takes a quarter millisecond
        network.eval()
    logits = []
    with torch.inference_mode():
        for part in (part for batch in batches for part in batch.split(at_once(batch, len(batch)))):
            with torch.autocast(part.device.type, torch.bfloat16, enabled=precision == "bf16"):
                logits.append(network(to_float(part)).float().cpu())
    return torch.cat(logits)


def _fresh(build: Callable[[], nn.Module], settings: TrainingSettings, seed: int, device: torch.device) -> nn.Module:
    torch.manual_seed(draws.seed_of(f"weights {seed}"))
    network = build().to(device)
    return network.to(memory_format=torch.channels_last) if settings.channels_last else network


@single_images_repaired()
def _epoch(
    work: _Work,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    each_step: Any,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    epoch: int,
    told: Told,
    me: Member | None,
) -> dict[str, float]:
    targets, settings, seed = work.targets, work.settings, work.seed
    generator = torch.Generator().manual_seed(draws.seed_of(f"epoch {seed} {epoch}"))
    torch.manual_seed(draws.seed_of(f"dropout {seed} {epoch}") + (0 if me is None else me.number))
    order = work.rows.training[torch.randperm(len(work.rows.training), generator=generator)]
    shifts = torch.randint(0, 2 * settings.crop + 1, (len(order), 2), generator=generator)
    flips = (torch.rand(len(order), generator=generator) < 0.5) & settings.flip
    order = _trained_on(order, settings)
    expected = targets.index_select(0, order.to(targets.device))
    parts = parts_of(len(order), settings.batch_size, me)
    places = places_of(parts)
    # One transfer for each epoch: a step of a small network takes as long as a few copies to the device.
    order, shifts, flips = order[places], shifts[places].to(targets.device), flips[places].to(targets.device)
    seeds = draws.seeds_of(f"terms {seed} {epoch}", order)
    network.train()
    means, at = Means(), 0
    moves, classes = settings.crop > 0 or settings.flip, int(targets.max()) + 1
    for part, padded in zip(parts, work.batches(order, parts[0].size, epoch), strict=True):
        own = slice(at, at + len(padded))
        shift, flip = (shifts[own], flips[own]) if moves else (None, None)
        images = to_float(crop(padded, shift, flip, settings.crop))
        images = augmented(settings.augment, images, seeds[own], first=at == 0)
        asked = (settings, optimizer, loss_of, seeds[own], part)
        with memory_for_a_step(len(padded)), part.whole_batch_norms():
            values = step(network, images, expected[part.whole], classes, *asked, accuracy=told.wants_accuracy)
        if each_step is not None:
            each_step.step()
        means.add(values, sum(part.sizes))
        told.batch(values["loss"])
        task_status.step(len(padded))
        at += len(padded)
    if me is not None:
        copy_first(network.buffers())
    curves = means.found()
    if not math.isfinite(curves["loss"]):
        raise ValueError(f"the loss is {curves['loss']} in epoch {epoch + 1}; {against_a_lost_loss(network)}")
    return curves


def _trained_on(order: Tensor, settings: TrainingSettings) -> Tensor:
    """Return the rows of an epoch without a last batch of one image. BatchNorm has no variance for one image."""
    return order[:-1] if len(order) > 1 and len(order) % settings.batch_size == 1 else order


def _validated(
    network: nn.Module, batches: Batches, indices: Tensor, settings: TrainingSettings, epoch: int
) -> Float[Tensor, "n k"]:
    def answers(size: int) -> Tensor:
        middles = (crop(padded, None, None, settings.crop) for padded in batches(indices, size, epoch))
        return predict(network, middles, precision=settings.precision)

    return with_smaller_batches(answers, settings.batch_size)


@contextlib.contextmanager
def _own_random_state(device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
