"""torchvision's classification networks, by name, for images in [0, 1]."""

import re
from collections import OrderedDict
from collections.abc import Sequence
from difflib import get_close_matches
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from urllib.parse import urlparse

import torch
import torchvision
from torch import nn

from efface.models.hookable import make_hookable
from efface.models.normalise import normalisation
from efface.models.weights import head, load_weights, read_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_AUXILIARY = ("aux1", "aux2", "AuxLogits")  # training-time branches of GoogLeNet and Inception
_SLOW_START = ("googlenet", "inception_v3")  # warn unless told whether to draw their initial weights as published


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
    """A torchvision network behind its normalisation: a Sequential of `normalise` and `network`.

    One ReLU module per use and nothing in place (see `make_hookable`); auxiliary classifiers are left out.

    name: as torchvision writes it, e.g. `resnet50`.
    weights: a name of torchvision's (`IMAGENET1K_V2`, `DEFAULT`), downloaded once into torchvision's own cache, or a
        state-dict file; fresh weights without.
    num_classes: classes wanted, those of the weights (or 1000) if not given; if the weights have another number, the
        last layer starts anew.
    freeze: whether trainings leave all weights but the last layer's as they are; the running statistics of BatchNorm
        move all the same. Needs `weights`.
    mean, std: one number a channel, for images in [0, 1]; none of them: no normalisation.
    kwargs: whatever the torchvision network takes.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        near = get_close_matches(name, names, n=4, cutoff=0.4)
        raise ValueError(f"torchvision has no classification network {name!r}; nearest are {', '.join(near or names)}")
    if freeze and weights is None:
        raise ValueError("freeze keeps weights that have learnt, but there are none: name weights, or leave freeze out")
    normalise = normalisation(mean, std)
    if weights is None:
        network = _build(name, weights=None, **{"num_classes": num_classes or 1000} | kwargs)
    elif str(weights) in torchvision.models.get_model_weights(name).__members__:
        network = _published(name, str(weights), kwargs)
    else:
        network = _from_file(name, Path(weights), kwargs)
    if num_classes is not None:
        _resize_head(network, num_classes)
    if freeze:
        network.requires_grad_(False).get_submodule(head(network)).requires_grad_(True)
    make_hookable(network)
    return nn.Sequential(OrderedDict(normalise=normalise, network=network))


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
        choice.get_state_dict(check_hash=True)  # from the cache where it has been fetched before
    except (OSError, HTTPException, RuntimeError, EOFError, UnpicklingError) as problem:
        if file.exists():
            raise ValueError(
                f"{file}: cannot be read as {name}'s weights; delete it, it is then fetched anew"
            ) from problem
        raise FileNotFoundError(
            f"{name}'s weights {weights} could not be downloaded ({problem}); "
            f"fetch {choice.url} on a machine that can and put it at {file}"
        ) from problem
    return _build(name, weights=choice, **kwargs)


def _from_file(name: str, path: Path, kwargs: dict[str, object]) -> nn.Module:
    if not path.is_file():
        choices = ", ".join(torchvision.models.get_model_weights(name).__members__)
        raise FileNotFoundError(f"weights: {path} is neither a file nor one of torchvision's for {name}: {choices}")
    state = {_current(key): value for key, value in read_weights(path).items() if key.split(".")[0] not in _AUXILIARY}
    network = _build(name, weights=None, **kwargs)
    last = state.get(f"{head(network)}.weight")
    if last is not None:
        _resize_head(network, len(last))
    load_weights(network, state, path)
    return network


def _current(key: str) -> str:
    """The present name of a weight: published DenseNet files still write `norm.1` for `norm1`."""
    return re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key)


def _resize_head(network: nn.Module, num_classes: int) -> None:
    """A new last layer, freshly drawn, unless it has the right number of classes already."""
    parent, _, child = head(network).rpartition(".")
    old = network.get_submodule(parent).get_submodule(child)
    bias = old.bias is not None
    if isinstance(old, nn.Linear) and old.out_features != num_classes:
        new: nn.Module = nn.Linear(old.in_features, num_classes, bias)
    elif isinstance(old, nn.Conv2d) and old.out_channels != num_classes:
        new = nn.Conv2d(old.in_channels, num_classes, 1, bias=bias)
    else:
        return
    setattr(network.get_submodule(parent), child, new)
