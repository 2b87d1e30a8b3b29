"""A network of a run: its key, the file of its weights, and the loaded module."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from efface.base import draws
from efface.models.adapt import Adaptation, adapted
from efface.models.loaded import new_layers
from efface.models.weights import load_weights, read_weights, weights_file
from efface.plug.call import Call
from efface.plug.given import is_given
from efface.stages.run.inputs import call_checked
from efface.stages.run.provenance import TRAINED
from efface.stages.run.weights_kept import tensor_bytes
from efface.store.keys import key, versions
from efface.store.sealed import is_whole, read_tensors
from efface.training.loop import TrainingSettings


@dataclass(frozen=True)
class Network:
    """A network that is trained by `fit`, read from `weights`, or used as its function makes it.

    name: what it is to the study, and the key that stands before its settings in messages.
    seed: of its weights and its training. data: digest of the training images; None where there are none, or for a
        network that is not trained. source: what gives the data.
    border: what fills the border that training crops from.
    adaptation: what the study says about its input and its output. shape: returns c h w of an image. classes: returns
        the number of classes of the data.
    """

    name: str
    model: Call
    fit: TrainingSettings | None
    weights: Path | None
    seed: int
    data: str | None
    source: str
    border: Call
    folder: Path
    device: torch.device
    adaptation: Adaptation
    shape: Callable[[], tuple[int, int, int]]
    classes: Callable[[], int]

    @cached_property
    def key(self) -> str:
        """A digest of everything that the weights depend on. It names the file."""
        what: dict[str, Any] = {"model": self.model.identity(), "seed": self.seed} | self.adaptation.identity()
        if self.weights is not None:
            what["weights"] = hashlib.sha256(_readable(weights_file(self.weights)).read_bytes()).hexdigest()[:16]
            if entry := str(self.weights).removeprefix(str(weights_file(self.weights))):
                what["entry"] = entry
        elif self.fit is not None:
            if self.data is None:
                raise ValueError(f"fit: {self.source} gives no 'train' split to fit on; give 'weights', or other data")
            what |= {"fit": self.fit.identity(), "data": self.data, "versions": versions(*TRAINED)}
            what["border"] = self.border.identity() if self.fit.crop else None
        return key(what)

    @property
    def path(self) -> Path:
        """The file of the trained weights."""
        return self.folder / f"{self.name}-{self.key}.pt"

    @property
    def origin(self) -> str:
        """The origin of the weights, in words."""
        if is_given(self.model.call) and (stated := getattr(self.model.resolve(), "origin", "")):
            return str(stated)
        return str(self.weights or (self.path if self.fit else "as its function makes it"))

    def trained(self) -> bool:
        """Return whether the weights exist. A network without training always has them."""
        return (
            self.weights is not None
            or self.fit is None
            or is_whole(self.path, self.key, "the network is trained again")
        )

    @property
    def where(self) -> str:
        """The key of the study that names the network's function."""
        return "model" if self.name == "network" else f"{self.name}.model"

    def build(self) -> nn.Module:
        """Return the network as its function makes it, with images in [0, 1] as input and logits as output.

        This is the only place where a network comes in. ValueError: it fails on images of this size, or does not fit.
        """
        network, shape = call_checked(self.where, self.model), self.shape()
        try:
            network, vars(self)["changes"] = adapted(network, self.adaptation, shape, self.classes())
        except ValueError as error:
            raise ValueError(f"{self.where}: {self.model.call}: {error}") from error
        except Exception as error:
            size, why = " x ".join(map(str, shape)), " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"{self.where}: {self.model.call} fails on images of {size}: {why}") from error
        return network

    @cached_property
    def changes(self) -> list[str]:
        """The changes that were made to the network, a sentence each."""
        self.build()
        return vars(self)["changes"]

    def fresh(self) -> nn.Module:
        """Return the network with fresh weights from the seed, on the device, in eval mode."""
        with torch.random.fork_rng(devices=[]):
            draws.seed_torch(draws.seed_of(f"network {self.seed}"))
            return self.build().to(self.device).eval()

    @cached_property
    def module(self) -> nn.Module:
        """The network, on the device, in eval mode."""
        path = self.weights or (self.path if self.fit is not None else None)
        if path is None:
            network = self.fresh()
            if new := new_layers(network):
                raise ValueError(
                    f"{self.where}: {', '.join(new)} has new random weights, because the file has none for this number "
                    "of classes; add fit to train the network, give trained weights, or drop num_classes"
                )
            return network
        if not self.weights and not path.is_file():
            raise FileNotFoundError(f"{path}: there is no trained network; run the train stage")
        network = self.fresh()
        if self.weights:
            load_weights(network, read_weights(path), path)
            self._check_finite(network, path)
            return network
        try:
            network.load_state_dict(read_tensors(_readable(path), self.key))
        except FileNotFoundError:
            raise
        except Exception as error:  # torch names a foreign or damaged file in many ways
            first = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise ValueError(f"{path}: does not fit {self.model.call} ({first}); delete it to train again") from error
        self._check_finite(network, path)
        return network

    def _check_finite(self, network: nn.Module, path: Path) -> None:
        """ValueError: a weight is NaN or infinite."""
        held = {name: value for name, value in network.state_dict().items() if isinstance(value, torch.Tensor)}
        floats = {name: value for name, value in held.items() if value.is_floating_point()}
        if not floats or torch.stack([value.sum().float().cpu() for value in floats.values()]).isfinite().all():
            return  # a sum shows each NaN and infinity; it may also overflow
        for name, value in floats.items():
            if not value.isfinite().all():
                count = int((~value.isfinite()).sum())
                raise ValueError(
                    f"{self.where}: {path}: {count} of {value.numel()} numbers of {name} are NaN or infinite; the "
                    "network is damaged, or its training diverged: take other weights"
                )

    def give_up(self) -> None:
        """Load the network again when it is needed next."""
        vars(self).pop("module", None)

    def to_try(self) -> nn.Module:
        """Return the network, or one with fresh weights if it is not trained yet."""
        return self.module if self.trained() else self.fresh()

    @property
    def digest(self) -> str:
        """A digest of the weights, or "not trained yet", which matches no stored digest."""
        return self._weights_digest if self.trained() else "not trained yet"

    @cached_property
    def _weights_digest(self) -> str:
        whole = hashlib.sha256(key(self.model.identity() | self.adaptation.identity()).encode())
        buffers = dict(self.module.named_buffers())  # a normalisation's numbers are in no state dict
        for name, value in (self.module.state_dict() | buffers).items():
            whole.update(name.encode() + tensor_bytes(value))
        return whole.hexdigest()[:16]


def _readable(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return path
