"""Layers that a loader gave new random weights, because the file has none for this number of classes."""

from collections.abc import Iterable

from torch import nn

_NAME = "efface_new_layers"


def state_new_layers(network: nn.Module, keys: Iterable[str]) -> None:
    """Note on the network which of its tensors are new, so that it is not explained before it is trained."""
    setattr(network, _NAME, tuple(dict.fromkeys(key.rpartition(".")[0] or key for key in keys)))


def new_layers(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers with new random weights."""
    return getattr(network, _NAME, ())
