"""The state of a training, in memory and in its checkpoint file.

The file is written after each epoch, so that a killed training can resume.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from efface.store.sealed import read_tensors, write_tensors


class Training:
    """State of a training: network, optimizer, schedule, the epochs done, and the best weights so far.

    path: the checkpoint file. It is loaded here if its fingerprint agrees. ValueError: it cannot be read; delete it.
    writes: False in a process that shares the training with the one that writes the file.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Any,
        path: Path | None,
        fingerprint: str,
        *,
        writes: bool = True,
    ) -> None:
        self.network, self.optimizer, self.schedule = network, optimizer, schedule
        self.path, self.fingerprint, self.writes = path, fingerprint, writes
        self.epoch, self.best_epoch = 0, -1
        self.losses: list[float] = []
        self.accuracies: list[float] = []
        self.terms: dict[str, list[float]] = {}
        self.best: dict[str, Tensor] = {}
        if path is not None and path.exists():
            self._load(path)

    def finish(self, epoch: int, found: Mapping[str, float], *, best: bool) -> None:
        """Record the epoch and the best weights, and write the whole checkpoint file."""
        self.epoch = epoch + 1
        self.losses.append(found["loss"])
        if "validation_accuracy" in found:
            self.accuracies.append(found["validation_accuracy"])
        for name, value in found.items():
            if name not in ("loss", "validation_accuracy"):
                self.terms.setdefault(name, []).append(value)
        if best and (not self.best or self.accuracies[-1] > max(self.accuracies[:-1])):
            self.best = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
            self.best_epoch = epoch
        if self.path is not None and self.writes:
            write_tensors(self.path, self.path.name, self._dump())

    def restore(self, keep: str) -> None:
        """Load the best weights into the network if `keep` is "best"."""
        if keep == "best":
            self.network.load_state_dict(self.best)

    def _dump(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "epoch": self.epoch,
            "losses": self.losses,
            "accuracies": self.accuracies,
            "terms": self.terms,
            "best_epoch": self.best_epoch,
            "best": self.best,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule is not None else None,
        }

    def _load(self, path: Path) -> None:
        device = next(self.network.parameters()).device
        try:
            state = read_tensors(path, path.name, device)
            if state["fingerprint"] != self.fingerprint:
                return
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.schedule is not None:
                self.schedule.load_state_dict(state["schedule"])
            self.epoch, self.best, self.best_epoch = state["epoch"], state["best"], state["best_epoch"]
            self.losses, self.accuracies, self.terms = state["losses"], state["accuracies"], state["terms"]
        except Exception as error:  # torch raises many types of errors for a damaged or foreign file
            raise ValueError(
                f"{path}: this file is not a checkpoint of this training ({' '.join(str(error).split())[:200]}); "
                "delete it to train from the start"
            ) from error
