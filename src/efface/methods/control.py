"""Maps that know nothing of the network: what an attribution method has to beat."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from efface import draws
from efface.methods.nested import FittedInner, ready
from efface.models.evaluation import evaluating
from efface.models.scores import logits_of
from efface.models.weights import load_weights, read_weights
from efface.plug.accepts import offer
from efface.plug.call import Call
from efface.types import Images, Maps, Method, Seeds, Target, Targets

Network = Callable[[], nn.Module] | str | Mapping[str, Any]
"""What makes a network: a function of no arguments, or, as in a study, a dotted path or {call, kwargs}."""


_Given = TypeVar("_Given", bound=Callable[..., Any])


def control(*, of_chance: bool = False) -> Callable[[_Given], _Given]:
    """For decorating a method: its maps know nothing of the network, so a study shows it as a control.

    The method then has `is_control = True`; a method of one's own may set that itself.

    of_chance: whether the maps are drawn at random. The other methods of a study are compared with the first such
        control, and all of them share their draws; the method has `is_random = True`.
    """

    def marked(method: _Given) -> _Given:
        facts = {"is_control": True} | ({"is_random": True} if of_chance else {})
        for name, value in facts.items():
            setattr(method, name, value)
        return method

    return marked


def is_control(method: Method) -> bool:
    """Whether a method, as it is or as a study calls it, says that it is a control; within `Around`, what is there."""
    return _says(method, "is_control") or is_random(method)


def is_random(method: Method) -> bool:
    """Whether a method says that it is a control of chance; within `Around`, what is there."""
    return _says(method, "is_random")


def _says(method: Any, fact: str) -> bool:
    found = method.resolve() if hasattr(method, "resolve") else method
    if found is FittedInner and hasattr(method, "methods"):
        return any(_says(each, fact) for name, each in method.methods().items() if name == "method")
    return getattr(found, fact, False) is True


@control(of_chance=True)
def random(model: nn.Module, images: Images, targets: Targets, *, seeds: Seeds, per_channel: bool = False) -> Maps:
    """Independent numbers in [0, 1), one a pixel: a fixed random ranking for each image. No pass of the network.

    seeds: one an image.
    per_channel: a number for each channel of a pixel, for studies that rank features.
    """
    del model, targets
    return draws.uniform(seeds.to(images.device), tuple(images.shape[1:] if per_channel else images.shape[2:]))


@control(of_chance=True)
def random_resampled(model: nn.Module, images: Images, targets: Targets, *, seeds: Seeds) -> Seeds:
    """The seeds themselves: a training draws a new random ranking from them each epoch. No pass of the network.

    A training on masks that change is regularised by them, which flatters this control against `random`.

    seeds: one an image.

    Source: the released code of Hooker et al. 2019 (arXiv:1806.10758), whose random baseline draws at every read.
    """
    del model, images, targets
    return seeds


@control()
def sobel(model: nn.Module, images: Images, targets: Targets) -> Float[Tensor, "n h w"]:
    """Length of the image's own gradient by the Sobel operator, mean over channels: edges. No pass of the network.

    The border is repeated outwards, so a flat image is 0 everywhere.

    Source: the edge control of Hooker et al. 2019 (arXiv:1806.10758).
    """
    del model, targets
    images = images.detach()
    across = images.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([across, across.T])[:, None]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
    slopes = F.conv2d(padded, kernels)
    return slopes.square().sum(1).sqrt().unflatten(0, images.shape[:2]).mean(1)


@control()
def centre(model: nn.Module, images: Images, targets: Targets, *, sigma: float = 0.25) -> Float[Tensor, "n h w"]:
    """A Gaussian at the middle of the image, 1 at its top: photographers put the object there. No pass of the network.

    The same map for every image; its ties, places equally far from the middle, are broken as all ties are.

    sigma: standard deviation as a fraction of the image's height and of its width, above 0; the ranking of a square
        image is the same for any.
    """
    del model, targets
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}; expected above 0, as a fraction of the image's side")
    lines = [(torch.arange(size, dtype=torch.float64) + 0.5) / size - 0.5 for size in images.shape[2:]]
    down, across = (torch.exp(-0.5 * (line / sigma).square()) for line in lines)
    return (down[:, None] * across).to(images.device, images.dtype).repeat(len(images), 1, 1)


@control()
def explain_with(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    network: Network,
    method: Method,
    weights: str | Path | None = None,
    seeds: Seeds | None = None,
    max_batch: int = 256,
) -> Maps:
    """Maps of another network for the same classes: what ranks the pixels as well knows nothing of the first one.

    The other network is made once in a process, and again only when its weights' file changes; what is drawn for it is
    always the same. Costs what `method` costs on it, and one image through both networks, to compare their classes.

    network: makes the other network, for images in [0, 1]; in a study a dotted path or {call, kwargs}.
    method: explains it; it is given seeds and rows if it takes them. One that learns does so with the other network.
    weights: its state-dict file; without one it is as `network` makes it.
    seeds, max_batch: handed on to `method`.
    """
    other = _made(network, weights).to(images.device)
    with evaluating(model), evaluating(other), torch.no_grad():
        own, others = (logits_of(each, images[:1].detach()).shape[1] for each in (model, other))
    if own != others:
        raise ValueError(
            f"explain_with: the other network, {type(other).__name__}, has {others} classes, the network of the study "
            f"{own}; expected the same: set num_classes in `network`"
        )
    found: Maps = offer(ready("method", method), other, images, targets, seeds=seeds, max_batch=max_batch)
    return found


@control()
def true_mask(
    model: nn.Module, images: Images, targets: Targets, *, masks: Bool[Tensor, "n h w"] | None = None
) -> Float[Tensor, "n h w"]:
    """1 where the true object is, 0 elsewhere: the best map there is, on data that know their object. No pass.

    masks: True where the object is; the data set's own.
    """
    del model, targets
    if masks is None:
        raise ValueError(
            "true_mask: the data set has no masks of the true object; expected n h w booleans: choose a data set that "
            "has them, such as efface.data.patches.patches, or drop this method"
        )
    return masks.to(images.device, images.dtype)


def _made(network: Network, weights: str | Path | None) -> nn.Module:
    maker = network if callable(network) else Call.model_validate(network)
    changed = None if weights is None or not Path(weights).exists() else Path(weights).stat().st_mtime_ns
    return _cached(maker, None if weights is None else str(weights), changed)


@lru_cache(maxsize=4)  # networks are large
def _cached(maker: Callable[[], nn.Module], weights: str | None, changed: int | None) -> nn.Module:
    """changed: when the file was, so that another one under its name is read anew."""
    del changed
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(draws.seed_of("explain_with"))  # fresh weights: those of the first process
        network = maker()
    if not isinstance(network, nn.Module):
        raise ValueError(f"explain_with: network made a {type(network).__name__}; expected a torch.nn.Module")
    if weights is not None:
        load_weights(network, read_weights(weights), weights)
    return network.eval()
