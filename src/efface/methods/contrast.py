"""Class-contrastive explanations: what speaks for the target class rather than for the others."""

import inspect
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.methods.nested import ready
from efface.models.evaluation import evaluating
from efface.models.memory import blocks
from efface.models.scores import logits_of
from efface.plug.accepts import offer, own_name
from efface.plug.call import Call
from efface.types import Images, Maps, Method, Seeds, Targets

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

    The weights add up to 1; they are taken at the image and then held constant.

    A base whose `score` is logit (every gradient-based one, Score-CAM, occlusion by default) runs once: it explains the
    weighted difference of the logits. Where it is linear in the gradient, that is the difference of its maps; where it
    is not (full_grad with psi, squares), it is its map of the difference. Any other base (RISE, which explains the
    probability by default) runs once for each class of weight above 0, all of them unless `against` is max, on the same
    seeds each time; its maps are then subtracted. One forward pass an image besides. A class activation map is
    contrasted before its ReLU.

    With the weighted contrast, gradient times p (1 - p) is the gradient of the target's probability p, and gradient
    times 1 - p that of its log probability: the same ranks within an image.

    base: the method that explains one class: (model, images, targets, ...) -> maps; gets `seeds` and `max_batch` if it
        takes them, and `relu=False`. If its `score` (of a class: the attribute) is logit, its targets are weights of
        the classes, n k.
    against: all others alike (mean), that with the largest logit (max), or by the softmax of their logits (weighted).
    relu: whether what speaks for the others becomes 0 in the end.
    seeds: one an image, for a base that draws.
    max_batch: rows in one pass, at least 1; bounds the memory.

    Source: Wang & Wang 2022, Class-contrastive back-propagation explanations, section 3 (NeurIPS).
    Differs: nothing for gradient and Grad-CAM; the rule for other bases is ours.
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
            found = _map(offer(base, model, images, classes.contiguous(), **offered))
            share = weights.gather(1, classes[:, None]).reshape(-1, *(1,) * (found.ndim - 1))
            maps = maps.to(found) + share.to(found) * found
    return maps.relu() if relu else maps


def _explains_logits(base: Method) -> bool:
    """Whether it explains the logit, as it will be called; then it explains a weighted sum of logits as well."""
    given = base.kwargs if isinstance(base, Call) else {}
    function = base.resolve() if isinstance(base, Call) else base
    own = own_name(function, "score")
    if own is None:  # a class keeps it
        return bool(getattr(base, "score", getattr(base, "score", None)) == "logit")
    return bool(given.get(own, inspect.signature(function).parameters[own].default) == "logit")


def _weights(logits: Float[Tensor, "n k"], targets: Targets, against: Against) -> Float[Tensor, "n k"]:
    """1 for the target class; minus its share for each other, all shares of an image adding up to 1."""
    classes = logits.shape[1]
    if classes < 2:
        raise ValueError("the network has one class; expected at least two: there is nothing to contrast with")
    targets = targets[:, None].clone()  # they may come from inference_mode
    others = logits.scatter(1, targets, -torch.inf)
    match against:
        case "mean":
            shares = torch.full_like(logits, 1 / (classes - 1))
        case "max":
            shares = torch.zeros_like(logits).scatter(1, others.argmax(1, keepdim=True), 1.0)
        case "weighted":
            shares = others.softmax(1)
        case _:
            raise ValueError(f"against is {against!r}; expected mean, max or weighted")
    return (-shares).scatter(1, targets, 1.0)


def _map(found: object) -> Tensor:
    if not isinstance(found, Tensor) or found.ndim not in (3, 4):
        returned = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise ValueError(f"base returned {returned}; expected one map, n h w or n c h w: name another method as base")
    return found
