"""Adversarial images: within a small distance, those that the network gets most wrong."""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface import draws
from efface.methods.passes import differentiable, evaluating, odds_against
from efface.types import Images, Seeds, Targets

Norm = Literal["linf", "l2"]
Start = Literal["zero", "random"]
Keep = Literal["last", "best"]
Losses = Float[Tensor, " n"]
"""Log odds against the true class: what the cross entropy grows with, in numbers that a sure network does not round."""


def pgd(
    network: nn.Module,
    images: Images,
    targets: Targets,
    *,
    norm: Norm,
    eps: float,
    step: float | None = None,
    steps: int = 8,
    start: Start = "zero",
    restarts: int = 1,
    keep: Keep = "last",
    seeds: Seeds | None = None,
) -> Images:
    """Projected gradient ascent on each image's cross entropy: images in [0, 1], at most `eps` from the given ones.

    The steps follow the log odds against the class, of which the cross entropy is the softplus: the same directions,
    and they are not lost where the network is so sure that its softmax is 1 in float32.

    The network is asked in evaluation mode; its modes, flags and gradients are afterwards as they were, and an image's
    attack does not depend on the others of its batch. With eps 0 the images themselves.

    norm: what eps measures: linf, the largest change of a channel of a pixel; l2, the Euclidean length of the change.
    eps: not below 0, in units of [0, 1], so for linf at most 1. A standard deviation that the network divides by does
        not count.
    step: length of a step in the norm, above 0; by default eps / 4 for linf, eps / 2 for l2.
    steps: at least 1; each costs a forward and a backward pass.
    start: zero, the image itself; random, uniform in the ball, from the seeds.
    restarts: attacks from so many random starts, at least 1, of which each image keeps the one of the highest loss;
        they cost as many times as much, and a forward pass each.
    keep: last, where the ascent ends; best, the highest loss on the way, start and end included; costs a forward pass.
    seeds: one an image, for random starts.

    Source: Madry, Makelov, Schmidt, Tsipras & Vladu 2018, section 2 (arXiv:1706.06083); the steps of Shah, Jain &
        Netrapalli 2021 (arXiv:2102.12781).
    Differs: evaluation mode and [0, 1] throughout, where theirs trains with its BatchNorms in training mode and scales
        eps by the range of normalised values; the random start fills the ball of eps.
    """
    check_pgd(norm=norm, eps=eps, step=step, steps=steps, start=start, restarts=restarts, keep=keep)
    if eps == 0 or not len(images):
        return images.detach()
    if start == "random" and seeds is None:
        raise ValueError("attack.pgd: seeds are missing; expected one integer an image: pass seeds, or start 'zero'")
    length = step if step is not None else eps / (4 if norm == "linf" else 2)
    with evaluating(network):
        images, targets = images.detach().clone(), targets.clone()  # what comes from inference_mode autograd refuses
        found, highest = images, images.new_full((len(images),), -math.inf)
        for number in range(restarts):
            begin = images
            if start == "random" and seeds is not None:
                begin = _inside(
                    images, _drawn(images, draws.fold(seeds.to(images.device), number), norm, eps), norm, eps
                )
            attacked, losses = _ascent(network, images, targets, begin, norm, eps, length, steps, keep)
            if restarts == 1:
                return attacked
            if losses is None:
                losses = _losses(network, attacked, targets)
            found, highest = _worse(found, highest, attacked, losses)
    return found


def check_pgd(
    norm: str,
    eps: float,
    step: float | None = None,
    steps: int = 8,
    start: str = "zero",
    restarts: int = 1,
    keep: str = "last",
) -> None:
    """ValueError: a setting outside of its range."""
    for name, value, known in (("norm", norm, Norm), ("start", start, Start), ("keep", keep, Keep)):
        if value not in get_args(known):
            raise ValueError(f"attack.pgd: {name} is {value!r}; expected {' or '.join(get_args(known))}")
    if not 0 <= eps < math.inf:
        raise ValueError(f"attack.pgd: eps is {eps}; expected a number not below 0, in units of [0, 1]")
    if norm == "linf" and eps > 1:
        raise ValueError(
            f"attack.pgd: eps is {eps}, but norm is linf and images lie in [0, 1]; expected at most 1: "
            f"for {eps:g} of 255 levels give {eps / 255:.6g}"
        )
    if step is not None and not 0 < step < math.inf:
        raise ValueError(f"attack.pgd: step is {step}; expected a number above 0, or none for a share of eps")
    for name, count in (("steps", steps), ("restarts", restarts)):
        if count < 1:
            raise ValueError(f"attack.pgd: {name} is {count}; expected a whole number of at least 1")
    if restarts > 1 and start == "zero":
        raise ValueError(
            f"attack.pgd: restarts is {restarts}, but start is 'zero', from which every attack is the same; "
            "set start to random, or restarts to 1"
        )


def _ascent(
    network: nn.Module,
    images: Images,
    targets: Targets,
    points: Images,
    norm: Norm,
    eps: float,
    length: float,
    steps: int,
    keep: Keep,
) -> tuple[Images, Losses | None]:
    """Where the steps lead from `points`; with the losses there, where they are known."""
    best, highest = points, images.new_full((len(images),), -math.inf)
    for _ in range(steps):
        asked = points.detach().requires_grad_()
        losses = odds_against(differentiable(network, asked), targets)
        (gradient,) = torch.autograd.grad(losses.sum(), asked)
        points = asked.detach()
        if keep == "best":
            best, highest = _worse(best, highest, points, losses.detach().to(highest))
        points = _inside(images, points - images + length * _uphill(gradient, norm), norm, eps)
    if keep == "last":
        return points, None
    return _worse(best, highest, points, _losses(network, points, targets).to(highest))


def _worse(found: Images, highest: Losses, others: Images, losses: Losses) -> tuple[Images, Losses]:
    """Of two attacks on each image the one of the higher loss."""
    higher = losses > highest
    return torch.where(higher[:, None, None, None], others, found), torch.where(higher, losses, highest)


def _losses(network: nn.Module, points: Images, targets: Targets) -> Losses:
    with torch.no_grad():
        return odds_against(network(points), targets).to(points)


def _uphill(gradient: Images, norm: Norm) -> Images:
    """The step of length 1 that the loss grows most along; none where the gradient is 0."""
    if norm == "linf":
        return gradient.sign()
    # by its largest value first: the squares of a small gradient are 0 in float32
    largest = gradient.abs().amax((1, 2, 3), keepdim=True)
    scaled = gradient / torch.where(largest > 0, largest, torch.ones_like(largest))
    return scaled / _lengths(scaled).clamp(min=1.0)  # the largest value is 1, or all are 0


def _inside(images: Images, change: Images, norm: Norm, eps: float) -> Images:
    """The image changed: the change projected to the ball, then the image to [0, 1], which makes no change longer."""
    within = change.clamp(-eps, eps) if norm == "linf" else change * (eps / _lengths(change).clamp(min=eps))
    return (images + within).clamp(0.0, 1.0)


def _drawn(images: Images, seeds: Seeds, norm: Norm, eps: float) -> Images:
    """A change uniform in the ball."""
    shape = tuple(images.shape[1:])
    if norm == "linf":
        return (draws.uniform(seeds, shape).to(images) * 2 - 1) * eps
    direction = draws.normal(seeds, shape).to(images)
    radius = draws.uniform(draws.fold(seeds, 0), (1, 1, 1)).to(images) ** (1 / direction[0].numel())
    return direction / _lengths(direction) * (radius * eps)


def _lengths(changes: Images) -> Float[Tensor, "n 1 1 1"]:
    return changes.flatten(1).norm(dim=1)[:, None, None, None]
