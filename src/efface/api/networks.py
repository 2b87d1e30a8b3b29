"""A network that Python code hands over, as the study's `model` and `weights`."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from efface.plug.given import digest_of, give
from efface.store.atomic import atomic_write


def network_keys(model: nn.Module | Callable[[], nn.Module], folder: Path, *, retrains: bool) -> dict[str, Any]:
    """Return the keys of a study for the network.

    model: a network, which is copied, or a function without arguments that makes one.
    folder: folder for the file of its weights.
    retrains: True if the study trains this kind of network again. A network then gives its weights as a file, and its
        copies start from fresh ones.

    ValueError: it is neither, or a network to train again has weights that cannot be drawn anew.
    """
    if not isinstance(model, nn.Module):
        if not callable(model):
            raise ValueError(
                f"model: is a {type(model).__name__}; expected a torch.nn.Module, or a function that makes one"
            )
        return {"model": {"call": give("model", getattr(model, "__name__", type(model).__name__), model)}}
    network = copy.deepcopy(model).cpu()
    digest, name = digest_of(network), type(model).__name__
    if not retrains:
        return {"model": {"call": give("model", name, _Copies(network), digest)}}
    path = folder / f"weights-{digest}.pt"
    if not path.exists():
        with atomic_write(path) as temporary:
            torch.save(network.state_dict(), temporary)
    _draw_anew(network)
    for value in network.parameters():
        value.data.zero_()  # each copy draws its own; the digest of its kind is that of the network
    return {"model": {"call": give("fresh", name, _Fresh(network), digest)}, "weights": str(path)}


class _Copies:
    """A function that returns a network with its weights."""

    origin = "as it was handed over"

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self) -> nn.Module:
        return copy.deepcopy(self.network)


class _Fresh(_Copies):
    """A function that returns such a network with fresh weights, drawn by torch's generator."""

    origin = "with the weights that were handed over"

    def __call__(self) -> nn.Module:
        network = copy.deepcopy(self.network)
        _draw_anew(network)
        return network


def _draw_anew(network: nn.Module) -> None:
    """Draw all weights as the layers draw them when they are made. ValueError: a layer does not say how."""
    for name, module in network.named_modules():
        own = [*module.parameters(recurse=False), *(b for b in module.buffers(recurse=False) if b.is_floating_point())]
        reset: Any = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
        elif own:
            raise ValueError(
                f"model: its layer '{name}' ({type(module).__name__}) has weights but no reset_parameters, so a "
                "network with fresh weights cannot be made for the trainings; hand over a function that makes it, and "
                "the weights as weights='file.pt'"
            )
