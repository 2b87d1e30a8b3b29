"""Class-contrastive explanations: evidence for the target class less evidence for the other classes."""

import inspect
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.shown import shown
from efface.base.types import Images, Maps, Method, Seeds, Targets
from efface.methods.nested import ready
from efface.models.evaluation import evaluating
from efface.models.memory import blocks
from efface.models.scores import logits_of
from efface.plug.accepts import offer, own_name
from efface.plug.call import Call

Against = Literal["mean", "max", "weighted"]


def contrast(
    model: nn.Module,
    images: Images,
    targets: Targets,
    *,
    base: Method,
    against: Against = "weighted",
    relu: bool = False,
    seeds: Seeds | None = None,
    max_batch: int = 256,
) -> Maps:
    """Explanation of the target class by another method, less the weighted explanations of all other classes; signed.

    The weights of the other classes add up to 1. They are computed at the image and then held constant.

    Formula: map = M(t) - sum over k != t of w_k M(k), with M(k) the base's map of class k.

    A base whose `score` is logit runs once. It explains the weighted difference of the logits. These are all
    gradient-based methods, Score-CAM and occlusion by default. If the base is linear in the gradient, its map equals
    the difference of its maps. If it is not (full_grad with psi, squares), its map is that of the difference.

    Any other base runs once for each class of weight above 0, with the same seeds each time. Its maps are then
    subtracted. This holds for RISE, which explains the probability by default. All classes have a weight above 0
    unless `against` is max.

    The contrast costs one more forward pass per image. A class activation map is contrasted before its ReLU.

    Let p be the target's probability. With the weighted contrast, the gradient map times p (1 - p) is the gradient of
    p. The gradient map times 1 - p is the gradient of log p. So all three give the same ranks within an image.

    base: method that explains one class: (model, images, targets, ...) -> maps. It receives `relu=False`, `seeds` and
        `max_batch` if it takes them. If its `score` is logit, its targets are weights of the classes, n k. For an
        instance of a class, the attribute `score` counts.
    against: weights of the other classes: mean, all equal; max, only the class with the largest logit; weighted, the
        softmax of their logits.
    relu: set negative values of the final map, evidence for the other classes, to 0.
    seeds: one integer per image, for a base that draws.
    max_batch: most rows in one pass, at least 1. It limits the memory.

    Source: Wang & Wang 2022, Class-contrastive back-propagation explanations, section 3 (NeurIPS).
    Differs: nothing for gradient and Grad-CAM; the rule for other bases is our own.
    """
    base = ready("base", base)
    with evaluating(model), torch.no_grad():
        logits = torch.cat([logits_of(model, images[block].detach()) for block in blocks(len(images), max_batch)])
        weights = _weights(logits, targets, against)
    offered = {"seeds": seeds, "max_batch": max_batch, "relu": False}
    if _explains_logits(base):
        maps = _map(offer(base, model, images, weights, **offered))
    else:
        ranked = weights.abs().sort(dim=1, descending=True, stable=True).indices
        count = int(weights.count_nonzero(1).max())
        maps = torch.zeros(())
        for classes in ranked[:, :count].T:
            class_maps = _map(offer(base, model, images, classes.contiguous(), **offered))
            share = weights.gather(1, classes[:, None]).reshape(-1, *(1,) * (class_maps.ndim - 1))
            maps = maps.to(class_maps) + share.to(class_maps) * class_maps
    return maps.relu() if relu else maps


def _explains_logits(base: Method) -> bool:
    """Return True if the base, with its settings, explains the logit; then it can explain a weighted sum of logits."""
    given = base.kwargs if isinstance(base, Call) else {}
    function = base.resolve() if isinstance(base, Call) else base
    own = own_name(function, "score")
    if own is None:  # an instance of a class keeps the setting as an attribute
        return bool(getattr(base, "score", getattr(base, "score", None)) == "logit")
    return bool(given.get(own, inspect.signature(function).parameters[own].default) == "logit")


def _weights(logits: Float[Tensor, "n k"], targets: Targets, against: Against) -> Float[Tensor, "n k"]:
    """Return 1 for the target class and minus its share for each other class; the shares of an image add up to 1."""
    classes = logits.shape[1]
    if classes < 2:
        raise ValueError("the network has one class; expected at least two: there is nothing to contrast with")
    targets = targets[:, None].clone()  # targets may come from inference_mode
    others = logits.scatter(1, targets, -torch.inf)
    match against:
        case "mean":
            shares = torch.full_like(logits, 1 / (classes - 1))
        case "max":
            shares = torch.zeros_like(logits).scatter(1, others.argmax(1, keepdim=True), 1.0)
        case "weighted":
            shares = others.softmax(1)
        case _:
            raise ValueError(f"against is {shown(against)}; expected mean, max or weighted")
    return (-shares).scatter(1, targets, 1.0)


def _map(result: object) -> Tensor:
    if not isinstance(result, Tensor) or result.ndim not in (3, 4):
        returned = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else f"a {type(result).__name__}"
        raise ValueError(f"base returned {returned}; expected one map, n h w or n c h w: name another method as base")
    return result
