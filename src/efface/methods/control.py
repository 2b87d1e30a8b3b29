"""Controls: maps that are no explanation of the network. They tell what a score is worth."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from efface.base import draws
from efface.base.shown import shown
from efface.base.types import Images, Knows, Maps, Method, Seeds, Target, Targets, TargetScore
from efface.methods.greedy_order import Order, greedy_order, grid_of_cells
from efface.methods.nested import FittedInner, ready
from efface.methods.occlusion import Value
from efface.models.evaluation import evaluating
from efface.models.scores import logits_of
from efface.models.weights import load_weights, read_weights
from efface.plug.accepts import offer
from efface.plug.call import Call

Network = Callable[[], nn.Module] | str | Mapping[str, Any]
"""Function without arguments that makes a network; in a study, a dotted path or {call, kwargs}."""

_Given = TypeVar("_Given", bound=Callable[..., Any])


def control(*, of_chance: bool = False, knows: Knows = "nothing") -> Callable[[_Given], _Given]:
    """Decorate a method that is no explanation, so that a study shows the method as a control.

    The decorator sets `is_control = True` on the method. Your own method may set this attribute itself.

    of_chance: the maps are drawn at random. Then the decorator also sets `is_random = True`. The other methods of a
        study are compared with the first random control, and all random controls share their draws.
    knows: what the maps know of the network. nothing: they do not use it. metric: they are optimised on the response
        that metrics measure; where such a control is ahead, the page says that the metric can be gamed. truth: they are
        exact for this network. The decorator sets `knows` on the method if it is not nothing.
    """

    def marked(method: _Given) -> _Given:
        facts: dict[str, Any] = {"is_control": True} | ({"is_random": True} if of_chance else {})
        facts |= {} if knows == "nothing" else {"knows": knows}
        for name, value in facts.items():
            setattr(method, name, value)
        return method

    return marked


def is_control(method: Method) -> bool:
    """Return True if a method, or the method that a study's call names, is marked as a control.

    For a `FittedInner` its inner `method` counts.
    """
    return _fact(method, "is_control") is True or is_random(method)


def is_random(method: Method) -> bool:
    """Return True if a method is marked as a random control; for a `FittedInner` its inner `method` counts."""
    return _fact(method, "is_random") is True


def known_to(method: Method) -> Knows:
    """Return what a method that is marked as a control knows of the network; for a `FittedInner`, its inner `method`.

    ValueError: the attribute `knows` of a function is no such word.
    """
    found = _fact(method, "knows") or "nothing"
    if found not in get_args(Knows):
        raise ValueError(f"the fact 'knows' is {shown(found)}; expected {', '.join(get_args(Knows))}")
    return cast("Knows", found)


def _fact(method: Any, fact: str) -> Any:
    resolved = method.resolve() if hasattr(method, "resolve") else method
    if resolved is FittedInner and hasattr(method, "methods"):
        inner = [_fact(each, fact) for name, each in method.methods().items() if name == "method"]
        return next(iter(inner), None)
    return getattr(resolved, fact, None)


@control(of_chance=True)
def random(model: nn.Module, images: Images, targets: Targets, *, seeds: Seeds, per_channel: bool = False) -> Maps:
    """Independent numbers in [0, 1), one per pixel: a fixed random ranking for each image. No pass of the network.

    seeds: one integer per image.
    per_channel: draw one number for each channel of a pixel, for studies that rank features.
    """
    del model, targets
    return draws.uniform(seeds.to(images.device), tuple(images.shape[1:] if per_channel else images.shape[2:]))


@control(of_chance=True)
def random_resampled(model: nn.Module, images: Images, targets: Targets, *, seeds: Seeds) -> Seeds:
    """Seeds in place of maps: a training draws a new random ranking from them in each epoch. No pass of the network.

    Masks that change in every epoch regularise a training. This favours this control over `random`.

    seeds: one integer per image.

    Source: the released code of Hooker et al. 2019 (arXiv:1806.10758), whose random baseline draws at every read.
    """
    del model, images, targets
    return seeds


@control()
def sobel(model: nn.Module, images: Images, targets: Targets) -> Float[Tensor, "n h w"]:
    """Length of the image's own gradient by the Sobel operator, mean over channels: edges. No pass of the network.

    Formula: map = mean over channels of sqrt(Gx^2 + Gy^2).

    The border is repeated outwards, so the map of an image of one colour is 0 everywhere.

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
def laplace(model: nn.Module, images: Images, targets: Targets) -> Float[Tensor, "n h w"]:
    """Absolute second derivative of the image, mean over channels: points and edges. No pass of the network.

    Formula: map = mean over channels of |up + down + left + right - 4 middle|.

    The border is repeated outwards, so the map of an image of one colour is 0 everywhere.

    Source: the edge control of Clark, Wilming & Haufe 2023 (arXiv:2306.12816).
    """
    del model, targets
    images = images.detach()
    kernel = images.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
    return F.conv2d(padded, kernel)[:, 0].abs().unflatten(0, images.shape[:2]).mean(1)


@control()
def centre(model: nn.Module, images: Images, targets: Targets, *, sigma: float = 0.25) -> Float[Tensor, "n h w"]:
    """Gaussian around the middle of the image, where photographers put the object; at most 1. No pass of the network.

    Formula: map(y, x) = exp(-((y - 0.5)^2 + (x - 0.5)^2) / (2 sigma^2)), y and x as fractions of the image's sides.

    Every image gets the same map. Pixels equally far from the middle are ties, and are broken like all ties.

    sigma: standard deviation as a fraction of the image's height and of its width, above 0. It does not change the
        ranking of a square image.
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
    """Maps of another network for the same classes: a method that ranks no better does not use the first network.

    The other network is made once per process, and again only if its file of weights changes. Its random weights are
    always the same. It costs the passes of `method` on the other network. One image also runs through both networks,
    to compare their classes.

    network: function that makes the other network, for images in [0, 1]; in a study a dotted path or {call, kwargs}.
    method: method that explains the other network; it receives `seeds` and `max_batch` if it takes them. A method
        that learns is fitted on the other network.
    weights: file with the state dict of the other network; without one, the network stays as `network` makes it.
    seeds: passed to `method`.
    max_batch: passed to `method`.
    """
    other = _made(network, weights).to(images.device)
    with evaluating(model), evaluating(other), torch.no_grad():
        own, others = (logits_of(classifier, images[:1].detach()).shape[1] for classifier in (model, other))
    if own != others:
        raise ValueError(
            f"explain_with: the other network, {type(other).__name__}, has {others} classes, the network of the study "
            f"{own}; expected the same number: set num_classes in `network`"
        )
    maps: Maps = offer(ready("method", method), other, images, targets, seeds=seeds, max_batch=max_batch)
    return maps


@control()
def true_mask(
    model: nn.Module, images: Images, targets: Targets, *, masks: Bool[Tensor, "n h w"] | None = None
) -> Float[Tensor, "n h w"]:
    """Mask of the true object, 1 inside and 0 outside: the best possible map, on data with such masks. No pass.

    masks: masks of the data set, True where the object is.
    """
    del model, targets
    if masks is None:
        raise ValueError(
            "true_mask: the data set has no masks of the true object; expected n h w booleans: choose a data set that "
            "has them, such as patches, or drop this method"
        )
    return masks.to(images.device, images.dtype)


@control(knows="truth")
def exact_map(model: nn.Module, images: Images, targets: Targets) -> Float[Tensor, "n h w"]:
    """Exact map that a network states itself, by a method `exact_map(images, targets)`, such as the network `designed`.

    A metric that does not rank it first measures something else than the contributions to the logit of the target.
    """
    if not callable(stated := getattr(model, "exact_map", None)):
        raise ValueError(
            f"exact_map: {type(model).__name__} has no method exact_map; expected a network whose exact map is known, "
            "such as the network designed: change the network, or drop this method"
        )
    maps: Float[Tensor, "n h w"] = stated(images, targets)
    return maps


@control(knows="metric")
def greedy(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    cells: int = 4,
    order: Order = "deletion",
    value: Value = 0.5,
    score: TargetScore = "probability",
    max_batch: int = 256,
) -> Float[Tensor, "n h w"]:
    """Order of cells that lowers the score most at each step: a map that is optimised on what `deletion` measures.

    Formula: of k cells, the one that is taken first has the value k, the next one k - 1, the last one 1.

    It explains nothing beyond these responses. Where it is ahead of all methods, the metric can be gamed. It costs
    k (k + 1) / 2 forward passes for k = cells^2 cells: 136 for 16 cells, 2,080 for 64. Cells with equal scores are
    taken in the order of reading.

    cells: cells of the grid along height and along width, at least 1 and at most the pixels of the shorter side.
    order: deletion, the cells are hidden one by one, each time the one without which the score is lowest. insertion,
        they are shown one by one on a hidden image, each time the one with which the score is highest.
    value: value of hidden pixels, in [0, 1]: one number, one number per channel, or "mean", each image's mean of each
        channel. Take the fill of the metric.
    score: score of the target class: logit, log_probability, probability or loss (cross entropy).
    max_batch: most images in one pass, at least 1. It limits the memory and changes maps by rounding only.

    Source: Walker, Jha & Ewetz 2025 (Metric-driven attributions for vision transformers, ICLR).
    Differs: a plain greedy order of cells, without their refinement.
    """
    images = images.detach()
    labels = grid_of_cells(images, cells)
    found = greedy_order(model, images, targets, labels, order=order, value=value, score=score, max_batch=max_batch)
    values = torch.arange(cells**2, 0, -1, dtype=images.dtype, device=images.device).expand(found.shape)
    return torch.empty_like(values).scatter_(1, found, values)[:, labels]


def _made(network: Network, weights: str | Path | None) -> nn.Module:
    maker = network if callable(network) else Call.model_validate(network)
    changed = None if weights is None or not Path(weights).exists() else Path(weights).stat().st_mtime_ns
    return _cached(maker, None if weights is None else str(weights), changed)


@lru_cache(maxsize=4)  # networks are large
def _cached(maker: Callable[[], nn.Module], weights: str | None, changed: int | None) -> nn.Module:
    """Make the network and load its weights.

    changed: time of the file's last change, so that a new file under the same name is read again.
    """
    del changed
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(draws.seed_of("explain_with"))  # fresh weights are the same in every process
        network = maker()
    if not isinstance(network, nn.Module):
        raise ValueError(f"explain_with: network made a {type(network).__name__}; expected a torch.nn.Module")
    if weights is not None:
        load_weights(network, read_weights(weights), weights)
    return network.eval()
