"""What a loader knows of the weights that it read, noted on the network."""

from collections.abc import Iterable

from torch import nn

_NEW_LAYERS, _SIZE, _NAMES = "efface_new_layers", "efface_image_size", "efface_class_names"


def state_new_layers(network: nn.Module, keys: Iterable[str]) -> None:
    """Note which tensors are new and random, because the file has none for this number of classes."""
    setattr(network, _NEW_LAYERS, tuple(dict.fromkeys(key.rpartition(".")[0] or key for key in keys)))


def new_layers(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers with new random weights, which cannot be explained before a training."""
    return getattr(network, _NEW_LAYERS, ())


def state_image_size(network: nn.Module, size: Iterable[int]) -> None:
    """Note the height and width in pixels of the images for which the weights were made."""
    height, width = size
    setattr(network, _SIZE, (height, width))


def image_size(network: nn.Module) -> tuple[int, int] | None:
    """Return the height and width of the images for which the weights were made; None if no loader noted it."""
    return getattr(network, _SIZE, None)


def state_class_names(network: nn.Module, names: Iterable[object]) -> None:
    """Note what the maker of the weights calls the classes, in the order of the outputs."""
    setattr(network, _NAMES, tuple(map(str, names)))


def class_names(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the classes in the order of the outputs; none if no loader noted them."""
    return getattr(network, _NAMES, ())
