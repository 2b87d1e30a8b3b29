"""A training on several devices, as the process that asks for it sees it, and as those that train see it."""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from efface.execute import task_status
from efface.execute.pool import processors
from efface.execute.process_group import Member, together
from efface.store.keys import key
from efface.training.settings import TrainingSettings
from efface.training.told import Log


def devices_of(settings: TrainingSettings, device: torch.device) -> int:
    """Return the number of devices of a training; `auto` is every GPU that torch sees, and one on processors.

    ValueError: there are not as many, or a batch has fewer images.
    """
    is_gpu = device.type == "cuda"
    there = torch.cuda.device_count() if is_gpu else processors()
    count = settings.devices if settings.devices != "auto" else there if is_gpu else 1
    if count > there:
        kind = "GPUs" if is_gpu else "processors"
        raise ValueError(
            f"fit.devices: is {count}, but this process sees {there} {kind}; lower it, or set auto for every GPU"
        )
    if is_gpu and count > 1 and device.index is not None:
        raise ValueError(f"fit.devices: is {count}, but device is '{device}', which is one GPU; set device to cuda")
    if count > settings.batch_size:
        raise ValueError(
            f"fit.devices: is {count}, but a batch has {settings.batch_size} images; lower devices, or raise batch_size"
        )
    return count


def asked_of(
    settings: TrainingSettings,
    training: Tensor,
    validation: Tensor | None,
    targets: Tensor,
    seed: int,
    fingerprint: str,
) -> dict[str, str]:
    """Return digests of what a training depends on. Each process of a training must have the same."""
    parts = {"training rows": training, "validation rows": validation, "classes": targets}
    digests = {
        name: "" if part is None else hashlib.sha256(part.cpu().numpy().tobytes()).hexdigest()
        for name, part in parts.items()
    }
    return digests | {"settings": key(settings.identity()), "seed": str(seed), "data or code": fingerprint}


def trained_together(
    count: int,
    device: torch.device,
    asked: dict[str, str],
    log: Log | None,
    advance: Callable[[float], None],
    images: int,
) -> Any:
    """Train in `count` processes, and return with what the first of them finished.

    images: number of images of an epoch, for the report of progress.

    ValueError: as `efface.execute.process_group.together`. An error of the training is raised again here.
    """

    def hear(message: Any) -> None:
        if isinstance(message, tuple):
            assert log is not None
            log(*message)
        else:
            task_status.step(images)
            advance(message)

    return together(count, device.type, (asked, log is not None), hear)


def heard(me: Member, asked: dict[str, str]) -> tuple[Log | None, Callable[[float], None]]:
    """Return the log and the progress of a process of a training; those of the first are heard.

    ValueError: this is not the training that was asked for.
    """
    wanted, logs = me.asked
    if others := [name for name, digest in asked.items() if wanted[name] != digest]:
        raise ValueError(
            f"fit.devices: process {me.number + 1} of {me.count} came to another training than the command, with other "
            f"{', '.join(others)}; data must be the same each time that they are read, and a probe may train one "
            "network: seed the draws of the data, or set devices to 1"
        )
    if me.number:
        return None, lambda _: None
    return (lambda name, value, step: me.tell((name, value, step))) if logs else None, me.tell
