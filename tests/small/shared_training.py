"""Trainings that several processes can share: networks, data and settings by name, so that each can make them anew."""

import os
import signal
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn

from efface.erase.batches import resident
from efface.execute.process_group import Member, Repeatable, member, together
from efface.training.loop import TrainingRows, TrainingSettings, train
from small.batches import stored_images

N = 44
HOME = "small.shared_training"


def targets():
    return torch.arange(N) % 4


class InDouble(nn.Module):
    """A network whose rounding is far below any tolerance. Its images stay float32."""

    def __init__(self, network):
        super().__init__()
        self.network = network.double()

    def forward(self, images):
        return self.network(images.to(next(self.network.parameters()).dtype))


def plain():
    return InDouble(
        nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Softplus(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(24, 4))
    )


def normed():
    """With BatchNorm of images and of vectors, and a parameter that no pass uses."""
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Softplus(), nn.AvgPool2d(8), nn.Flatten(),
        nn.BatchNorm1d(6, affine=False, momentum=None), nn.Linear(6, 4),
    )  # fmt: skip
    network.register_parameter("unused", nn.Parameter(torch.ones(3)))
    return InDouble(network)


def single():
    """In float32, for autocast."""
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4))


def dropping():
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 4))


NETWORKS = {"plain": plain, "normed": normed, "single": single, "dropping": dropping}


def batch_loss(outputs, expected):
    """A loss that is no mean over images: it depends on which images are in the batch."""
    weights = torch.bincount(expected, minlength=4).to(outputs)
    return F.cross_entropy(outputs, expected, weight=weights) + 0.1 * outputs.std(0).mean()


def killed(images, seeds, *, flag: str):
    """An augmentation that changes nothing, and ends the second process in the second epoch if the file is there."""
    global _CALLS  # noqa: PLW0603  of this process
    _CALLS += 1
    if member() is not None and member().number == 1 and Path(flag).exists() and _CALLS == 4:
        Path(flag).unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return images


def odd(images, seeds):
    """An augmentation that fails in the second process alone."""
    if member() is not None and member().number == 1:
        raise ValueError("this image is odd")
    return images


_CALLS = 0


@dataclass(frozen=True)
class Training:
    """A training. images: of its rows. shuffled: the classes differ in each process."""

    network: str
    settings: TrainingSettings
    images: int = 36
    validation: bool = True
    checkpoint: Path | None = None
    shuffled: bool = False


def trained(task: Training, **told):
    """Train in this process, or in several if the settings say so."""
    noise = stored_images(N, 8 + 2 * task.settings.crop, seed=3)
    noise[:, 0] = noise[:, 0] // 2 + (64 * (targets() % 2))[:, None, None].byte()  # something to be learnt
    feed = resident(N, lambda rows: (noise[rows], None), lambda found, maps, rows, epoch: found)
    rows = TrainingRows(torch.arange(task.images), torch.arange(36, N) if task.validation else None)
    classes = targets().roll(member().number if member() is not None and task.shuffled else 0)
    return train(
        NETWORKS[task.network], feed, rows, classes, task.settings, seed=1, device=torch.device("cpu"),
        checkpoint=task.checkpoint, fingerprint="shared", **told,
    )  # fmt: skip


def shared(task: Training, **told):
    """Train as a stage does: other processes can come to the same training."""
    return Repeatable(lambda each: trained(each, **told), trained)(task)


def each_shared(tasks: list[Training], count: int):
    """What each of these trainings gives if `count` processes share it. The processes start once for all of them."""
    results = []
    found = Repeatable(lambda _: together(count, "cpu", None, print), _each)(tasks)
    for task, (weights, result) in zip(tasks, found, strict=True):
        network = NETWORKS[task.network]()
        network.load_state_dict(weights)
        results.append(replace(result, network=network.eval()))
    return results


def _each(tasks: list[Training]):
    found = []
    for task in tasks:
        with mock.patch("efface.training.loop.member", return_value=_Going(member().number, member().count)):
            try:
                trained(task)
            except _DoneError as done:
                found.append(done.args[0])
    member().finish(found)


class _Going(Member):
    """A member that goes on after a training, to whichever comes next."""

    def __init__(self, number, count):
        super().__init__(number, count, (defaultdict(_Any), False), lambda _: None)

    def finish(self, result):
        raise _DoneError(result)


class _DoneError(Exception):
    pass


class _Any:
    def __eq__(self, other):
        return True

    __hash__ = None
