"""Adversarial images: the images within a small distance for which the network's loss is largest."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base import draws
from efface.base.shown import shown
from efface.base.types import Images, Seeds, Targets
from efface.models.evaluation import evaluating
from efface.models.scores import differentiable, odds_against
from efface.plug.shared_settings import with_settings_of

Norm = Literal["linf", "l2"]
Start = Literal["zero", "random"]
Keep = Literal["last", "best"]
Loss = Literal["untargeted", "targeted", "random_targeted", "plusone_targeted", "binary_hybrid"]
Losses = Float[Tensor, " n"]
"""Log odds against the true class, or for the class that the attack aims at.

The cross entropy is a monotone function of the log odds. A confident network does not round the log odds.
"""
Climbed = Callable[[Float[Tensor, "n k"]], Losses]


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
    loss: Loss = "untargeted",
    seeds: Seeds | None = None,
) -> Images:
    """Projected gradient ascent on the cross entropy of each image.

    The result lies in [0, 1], at a distance of at most `eps` from the given images. With eps 0 it is the given images.
    The steps follow the log odds against the class. The cross entropy is the softplus of the log odds, so the
    directions are the same. The log odds keep a gradient where the softmax of a confident network is 1 in float32.

    The network runs in evaluation mode. Its modes, flags and gradients are restored afterwards. The attack on an image
    does not depend on the other images of the batch.
    Formula: x <- clip(project(x + step * direction(gradient of the log odds)), 0, 1).

    targets: the true classes. For `loss: targeted`, the classes to reach.
    norm: measure of eps. linf: largest change of a channel of a pixel. l2: Euclidean length of the change.
    eps: size of the ball, at least 0, in units of [0, 1], for linf at most 1. It is not divided by the standard
        deviation of the network's normalisation.
    step: length of a step in the norm, above 0. Default: eps / 4 for linf, eps / 2 for l2.
    steps: number of steps, at least 1. Each costs a forward and a backward pass.
    start: zero: the image itself. random: uniform in the ball, drawn from the seeds.
    restarts: number of attacks from random starts, at least 1. Each image keeps the one with the highest loss. The cost
        is multiplied by this number, plus a forward pass for each restart.
    keep: last: the end of the ascent. best: the highest loss on the way, start and end included, for one more forward
        pass.
    loss: the loss that the steps raise, and that restarts and `keep` compare. untargeted: the cross entropy of the
        class. The other words lower the cross entropy of another class. targeted: the class in `targets`. It is not for
        a study, whose targets are the true classes. random_targeted: a class other than the true one, drawn from the
        seed, the same for all restarts. plusone_targeted: the true class + 1; after the last class comes the first.
        binary_hybrid, for two classes only: the difference of both cross entropies. That is the log odds, so it equals
        untargeted.
    seeds: one for each image, for random starts and random classes.

    Source: Madry, Makelov, Schmidt, Tsipras & Vladu 2018, section 2 (arXiv:1706.06083); steps and losses of Shah,
        Jain & Netrapalli 2021 (arXiv:2102.12781), and of its released code.
    Differs: evaluation mode and [0, 1] throughout; theirs trains with its BatchNorms in training mode and scales eps by
        the range of normalised values. The random start fills the ball of eps and is clipped to [0, 1] at once; theirs
        is clipped after the first step.
    """
    _check(norm, eps, step, steps, start, restarts, keep, loss)
    if eps == 0 or not len(images):
        return images.detach()
    drawn = [setting for setting in (f"start '{start}'", f"loss '{loss}'") if "random" in setting]
    if drawn and seeds is None:
        raise ValueError(
            f"attack.pgd: seeds are missing, and {' and '.join(drawn)} draws from them; expected one integer an image: "
            "pass seeds, or choose another setting"
        )
    length = step if step is not None else eps / (4 if norm == "linf" else 2)
    with evaluating(network):
        images, targets = images.detach().clone(), targets.clone()  # autograd refuses tensors of inference_mode
        own = None if seeds is None else seeds.to(images.device)
        climbed = partial(_climbed, targets=targets, loss=loss, seeds=own)
        best, highest = images, images.new_full((len(images),), -math.inf)
        for number in range(restarts):
            begin = images
            if start == "random" and own is not None:
                begin = _inside(images, _drawn(images, draws.fold(own, number), norm, eps), norm, eps)
            attacked, losses = _ascent(network, images, climbed, begin, norm, eps, length, steps, keep)
            if restarts == 1:
                return attacked
            if losses is None:
                losses = _losses(network, attacked, climbed)
            best, highest = _worse(best, highest, attacked, losses)
    return best


@with_settings_of(pgd, but=("seeds",))
def check_pgd(**settings: Any) -> None:
    """Raise ValueError if a setting is outside its range, or is not allowed in a study."""
    _check(**settings)
    if settings["loss"] == "targeted":
        raise ValueError(
            "attack.pgd: loss is 'targeted', which takes the classes to reach as targets, but a study gives the true "
            "ones; expected untargeted, random_targeted, plusone_targeted or binary_hybrid: take one of them"
        )


def minimal(
    network: nn.Module, images: Images, targets: Targets, *, norm: Norm, step: float, steps: int = 100
) -> Images:
    """Move each image until the network gives it another class: a small attack without a fixed size.

    An image takes equal steps up the log odds against its class, clipped to [0, 1]. It stops as soon as its class is
    lost. A misclassified image does not move. An image that is still right after the last step has kept its class. The
    length of the move is an upper bound of the distance to another class. On a linear network, far from 0 and 1, it is
    too long by at most one step.

    The network runs in evaluation mode and is restored. An image does not depend on the rest of its batch.

    norm: measure of a step, linf or l2.
    step: length of a step, above 0, in units of [0, 1]. It is the resolution of the distance.
    steps: largest number of steps, at least 1. Each costs a forward and a backward pass of the images still right.

    Source: as `pgd`, with the same steps and without its ball.
    """
    check_minimal(norm, step, steps)
    with evaluating(network):
        points, targets = images.detach().clone(), targets.clone()
        still = torch.arange(len(points), device=points.device)
        for _ in range(steps):
            if not len(still):
                break
            asked = points[still].requires_grad_()
            logits = differentiable(network, asked)
            _check_classes("minimal", logits)
            right = logits.argmax(1) == targets[still]
            (gradient,) = torch.autograd.grad(odds_against(logits, targets[still]).sum(), asked)
            still = still[right]
            points[still] = (asked.detach() + step * _uphill(gradient, norm))[right].clamp(0.0, 1.0)
    return points


def check_minimal(norm: str, step: float, steps: int = 100) -> None:
    """Raise ValueError if a setting is outside its range."""
    _known("minimal", norm=(norm, Norm))
    if not 0 < step < math.inf:
        raise ValueError(f"attack.minimal: step is {step}; expected a number above 0, in units of [0, 1]")
    _counts("minimal", steps=steps)


def _check(
    norm: str, eps: float, step: float | None, steps: int, start: str, restarts: int, keep: str, loss: str
) -> None:
    _known("pgd", norm=(norm, Norm), start=(start, Start), keep=(keep, Keep), loss=(loss, Loss))
    if not 0 <= eps < math.inf:
        raise ValueError(f"attack.pgd: eps is {eps}; expected a number not below 0, in units of [0, 1]")
    if norm == "linf" and eps > 1:
        raise ValueError(
            f"attack.pgd: eps is {eps}, but norm is linf and images lie in [0, 1]; expected at most 1: "
            f"for {eps:g} of 255 levels give {eps / 255:.6g}"
        )
    if step is not None and not 0 < step < math.inf:
        raise ValueError(f"attack.pgd: step is {step}; expected a number above 0, or none for a share of eps")
    _counts("pgd", steps=steps, restarts=restarts)
    if restarts > 1 and start == "zero":
        raise ValueError(
            f"attack.pgd: restarts is {restarts}, but start is 'zero', so every attack is the same; "
            "set start to random, or restarts to 1"
        )


def _known(where: str, **settings: tuple[str, object]) -> None:
    for name, (value, words) in settings.items():
        if value not in get_args(words):
            raise ValueError(f"attack.{where}: {name} is {shown(value)}; expected {' or '.join(get_args(words))}")


def _counts(where: str, **settings: int) -> None:
    for name, count in settings.items():
        if count < 1:
            raise ValueError(f"attack.{where}: {name} is {count}; expected a whole number of at least 1")


def _check_classes(where: str, logits: Float[Tensor, "n k"]) -> None:
    if logits.shape[1] == 1:
        raise ValueError(
            f"attack.{where}: the network has one class, so no image can lose its class; expected two or more: "
            "attack a network that has two or more"
        )


def _climbed(logits: Float[Tensor, "n k"], targets: Targets, loss: Loss, seeds: Seeds | None) -> Losses:
    """Return the quantity that the steps raise, for the logits of each image."""
    _check_classes("pgd", logits)
    count = logits.shape[1]
    if loss == "binary_hybrid" and count != 2:
        raise ValueError(
            f"attack.pgd: loss is 'binary_hybrid', but the network has {count} classes; expected two: set untargeted, "
            "which is the same for two classes"
        )
    match loss:
        case "untargeted" | "binary_hybrid":
            return odds_against(logits, targets)
        case "targeted":
            aims = targets
        case "plusone_targeted":
            aims = (targets + 1) % count
        case "random_targeted":
            assert seeds is not None
            further = draws.keys(draws.fold(seeds, -1), 1)[:, 0].remainder(count - 1)  # starts fold by 0 and up
            aims = (targets + 1 + further) % count
    return -odds_against(logits, aims)


def _ascent(
    network: nn.Module,
    images: Images,
    climbed: Climbed,
    points: Images,
    norm: Norm,
    eps: float,
    length: float,
    steps: int,
    keep: Keep,
) -> tuple[Images, Losses | None]:
    """Return the images after the steps from `points`, and their losses where these are known."""
    best, highest = points, images.new_full((len(images),), -math.inf)
    for _ in range(steps):
        asked = points.detach().requires_grad_()
        losses = climbed(differentiable(network, asked))
        (gradient,) = torch.autograd.grad(losses.sum(), asked)
        points = asked.detach()
        if keep == "best":
            best, highest = _worse(best, highest, points, losses.detach().to(highest))
        points = _inside(images, points - images + length * _uphill(gradient, norm), norm, eps)
    if keep == "last":
        return points, None
    return _worse(best, highest, points, _losses(network, points, climbed).to(highest))


def _worse(best: Images, highest: Losses, others: Images, losses: Losses) -> tuple[Images, Losses]:
    """Return the attack with the higher loss for each image, and that loss."""
    higher = losses > highest
    return torch.where(higher[:, None, None, None], others, best), torch.where(higher, losses, highest)


def _losses(network: nn.Module, points: Images, climbed: Climbed) -> Losses:
    with torch.no_grad():
        return climbed(network(points)).to(points)


def _uphill(gradient: Images, norm: Norm) -> Images:
    """Return the direction of length 1 in which the loss grows most, or zeros if the gradient is 0."""
    if norm == "linf":
        return gradient.sign()
    # divide by the largest value first: the squares of a small gradient are 0 in float32
    largest = gradient.abs().amax((1, 2, 3), keepdim=True)
    scaled = gradient / torch.where(largest > 0, largest, torch.ones_like(largest))
    return scaled / _lengths(scaled).clamp(min=1.0)  # the largest value is 1, or all are 0


def _inside(images: Images, change: Images, norm: Norm, eps: float) -> Images:
    """Return the changed image in [0, 1]. The change is first projected to the ball, and clipping keeps it there."""
    clipped = change.clamp(-eps, eps) if norm == "linf" else change * (eps / _lengths(change).clamp(min=eps))
    return (images + clipped).clamp(0.0, 1.0)


def _drawn(images: Images, seeds: Seeds, norm: Norm, eps: float) -> Images:
    """Return a random change, uniform in the ball."""
    shape = tuple(images.shape[1:])
    if norm == "linf":
        return (draws.uniform(seeds, shape).to(images) * 2 - 1) * eps
    direction = draws.normal(seeds, shape).to(images)
    radius = draws.uniform(draws.fold(seeds, 0), (1, 1, 1)).to(images) ** (1 / direction[0].numel())
    return direction / _lengths(direction) * (radius * eps)


def _lengths(changes: Images) -> Float[Tensor, "n 1 1 1"]:
    return changes.flatten(1).norm(dim=1)[:, None, None, None]
