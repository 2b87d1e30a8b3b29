"""torchvision's classification networks, by name, for images in [0, 1]."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from urllib.parse import urlparse

import torch
import torchvision
from torch import nn

from efface.base.shown import shown
from efface.models.around import normalised
from efface.models.hookable import make_hookable
from efface.models.loaded import state_class_names, state_image_size, state_new_layers
from efface.models.normalise import normalisation
from efface.models.weights import head, load_weights, read_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_AUXILIARY = ("aux1", "aux2", "AuxLogits")  # training-time branches of GoogLeNet and Inception
_SLOW_START = ("googlenet", "inception_v3")  # torchvision warns unless `init_weights` is given


def load(
    name: str,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    freeze: bool = False,
    mean: Sequence[float] | None = IMAGENET_MEAN,
    std: Sequence[float] | None = IMAGENET_STD,
    **kwargs: object,
) -> nn.Module:
    """A torchvision network after its normalisation: a Sequential of `normalise` and `network`.

    The network has one ReLU module for each use and no in-place operations (see `make_hookable`). Auxiliary classifiers
    are left out.

    name: torchvision's name of the network, such as `resnet50`.
    weights: torchvision's name of the weights (`IMAGENET1K_V2`, `DEFAULT`), which are downloaded once into
        torchvision's own cache, or a state-dict file; None: new random weights.
    num_classes: number of classes; None: that of the weights, or 1000. If the weights have another number, the last
        layer gets new random weights, which have to be trained.
    freeze: True to train only the weights of the last layer; needs `weights`. The running statistics of BatchNorm still
        change in a training.
    mean: one number for each channel, for images in [0, 1]. With None for both `mean` and `std` there is no
        normalisation.
    std: one number above 0 for each channel.
    kwargs: settings of the torchvision network.
    """
    _refuse_unknown(name)
    if freeze and weights is None:
        raise ValueError("freeze keeps trained weights, but none are given: set weights, or drop freeze")
    normalise = normalisation(mean, std)
    if weights is None:
        network = _build(name, weights=None, **{"num_classes": num_classes or 1000} | kwargs)
    elif str(weights) in torchvision.models.get_model_weights(name).__members__:
        network = _published(name, str(weights), kwargs)
        if num_classes is None:
            state_class_names(network, torchvision.models.get_model_weights(name)[str(weights)].meta["categories"])
    else:
        network = _from_file(name, Path(weights), kwargs)
    if num_classes is not None and _resize_head(network, num_classes) and weights is not None:
        state_new_layers(network, [f"{head(network)}.weight"])
    if freeze:
        network.requires_grad_(False).get_submodule(head(network)).requires_grad_(True)
    make_hookable(network)
    return normalised(network, normalise)


def _build(name: str, **kwargs: object) -> nn.Module:
    if name in _SLOW_START and kwargs.get("weights") is None:
        kwargs = {"init_weights": True} | kwargs
    try:
        network = torchvision.models.get_model(name, **kwargs)
    except TypeError as problem:
        raise ValueError(f"torchvision's {name}: {problem}") from problem
    for branch in _AUXILIARY:
        if getattr(network, branch, None) is not None:
            setattr(network, branch, None)
            network.aux_logits = False
    return network


def _published(name: str, weights: str, kwargs: dict[str, object]) -> nn.Module:
    choice = torchvision.models.get_model_weights(name)[weights]
    file = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(choice.url).path).name)
    try:
        choice.get_state_dict(check_hash=True)  # from the cache after the first download
    except (OSError, HTTPException, RuntimeError, EOFError, UnpicklingError) as problem:
        if file.exists():
            raise ValueError(
                f"{file}: cannot be read as {name}'s weights; delete the file, so that it is downloaded again"
            ) from problem
        raise FileNotFoundError(
            f"{name}'s weights {weights} could not be downloaded ({problem}); "
            f"download {choice.url} on another machine and put it at {file}"
        ) from problem
    network = _build(name, weights=choice, **kwargs)
    state_image_size(network, choice.transforms().crop_size * 2)
    return network


def _from_file(name: str, path: Path, kwargs: dict[str, object]) -> nn.Module:
    if not path.is_file():
        choices = ", ".join(torchvision.models.get_model_weights(name).__members__)
        raise FileNotFoundError(
            f"weights: {path} is neither a file nor one of torchvision's weights for {name}: {choices}"
        )
    state = {_current(key): value for key, value in read_weights(path).items() if key.split(".")[0] not in _AUXILIARY}
    network = _build(name, weights=None, **kwargs)
    last = state.get(f"{head(network)}.weight")
    if last is not None:
        _resize_head(network, len(last))
    load_weights(network, state, path)
    return network


def _current(key: str) -> str:
    """Return the present name of a weight: published DenseNet files still have `norm.1` for `norm1`."""
    return re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key)


def _resize_head(network: nn.Module, num_classes: int) -> bool:
    """Replace the last layer by one with random weights, unless it has the right number of classes already.

    Return whether it was replaced.
    """
    parent, _, child = head(network).rpartition(".")
    old = network.get_submodule(parent).get_submodule(child)
    bias = old.bias is not None
    if isinstance(old, nn.Linear) and old.out_features != num_classes:
        new: nn.Module = nn.Linear(old.in_features, num_classes, bias)
    elif isinstance(old, nn.Conv2d) and old.out_channels != num_classes:
        new = nn.Conv2d(old.in_channels, num_classes, 1, bias=bias)
    else:
        return False
    setattr(network.get_submodule(parent), child, new)
    return True


def input_side(name: str) -> int:
    """Return the side of the images of the network's newest weights. Nothing is downloaded.

    ValueError: torchvision has no such network.
    """
    _refuse_unknown(name)
    return int(torchvision.models.get_model_weights(name).DEFAULT.transforms().crop_size[0])


def _refuse_unknown(name: str) -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        near = get_close_matches(name, names, n=4, cutoff=0.4)
        raise ValueError(
            f"torchvision has no classification network {shown(name)}; nearest are {', '.join(near or names)}"
        )
