"""Adversarial gradient integration: paths from the image to images that the network assigns to another class."""

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Seeds, Target, Targets, TargetScore
from efface.methods.noise import needed
from efface.methods.path.average import Kept, Recalibrate, check_recalibrate
from efface.models.evaluation import evaluating_fast
from efface.models.memory import at_least_one, blocks
from efface.models.scores import differentiable, logits_of, scores_of

Classes = Int[Tensor, "n s"]
"""Classes for each image."""


def adversarial_gradient_integration(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    seeds: Seeds | None = None,
    samples: int = 20,
    steps: int = 20,
    step_size: float = 0.05,
    classes: Classes | None = None,
    recalibrate: Recalibrate = "none",
    score: TargetScore = "logit",
    max_batch: int = 256,
) -> Images:
    """Fall of the target logit on paths to adversarial images of other classes, distributed over the pixels (AGI).

    Formula: map = - sum over classes c and steps k of grad f_t(x_k) * (x_(k+1) - x_k), with
        x_(k+1) = clip(x_k + step_size * sign(grad f_c(x_k)), 0, 1).

    The path to another class starts at the image. Each step follows the sign of that class's gradient. The path ends
    when the network predicts that class, or after `steps` steps. No baseline is needed. If the network already predicts
    a class at the image, that class has no path.

    seeds: one integer per image. An image's classes depend only on its seed, not on the batch.
    samples: other classes for each image, drawn without repeats, at least 1; all of them where there are fewer.
    steps: most steps for each class, at least 1. Each step costs one forward and two backward passes. An image whose
        paths end early costs less.
    step_size: change of each pixel and channel in one step, on the scale of images in [0, 1], above 0.
    classes: the other classes themselves, n s, in place of `samples`. Then no seeds are needed.
    recalibrate: none, the sum. Or, for each element, the mean of the contributions that are not below zero: of whole
        paths (`references`), or of single steps (`points`). Costs no pass.
    score: score of the target and of the other class to differentiate: logit, log_probability, probability or loss.
        With loss, the target's score is the cross entropy, and the other class's score is log_probability.
    max_batch: most images x classes in one pass, at least 1. It limits the memory and changes maps by rounding only.
        The sign of a gradient near 0 is sensitive to rounding: we measured 4e-4 of a map's maximum in single precision.

    Source: Pan, Li & Zhu, IJCAI 2021; re-calibration from Yang et al., ICLR 2023.
    Differs: the default score is the logit; the released code uses probabilities (`score="probability"`). In that code
        every step starts from the image itself, and the classes are fixed. The code of Yang et al. attacks an
        unnormalised image, may draw the target itself, and never stops early.
    """
    check_recalibrate(recalibrate)
    at_least_one("steps", steps)
    if not step_size > 0:
        raise ValueError(f"step_size is {step_size}; expected a number above 0, on the scale of images in [0, 1]")
    images = images.detach()
    explained = targets.argmax(1) if targets.is_floating_point() else targets
    with evaluating_fast(model, images) as network:
        if classes is None:
            classes = other_classes(network, images, explained, seeds, samples)
        classes = classes.to(images.device)
        if (own := (classes == explained[:, None]).any(1)).any():
            row = int(own.nonzero()[0])
            raise ValueError(f"classes of image {row} hold {int(explained[row])}, its target; expected other classes")
        kept = Kept(images, recalibrate)
        for block in blocks(len(images), max_batch):
            together = max(1, max_batch // len(images[block]))
            for some in classes[block].split(together, 1):
                for terms, counts in _terms(
                    network, images[block], targets[block], some, steps, step_size, score, each=recalibrate == "points"
                ):
                    kept.add(block, terms, None, counts)
        return kept.total if recalibrate == "none" else kept.average()


def _terms(
    model: nn.Module,
    images: Images,
    targets: Target,
    classes: Classes,
    steps: int,
    step_size: float,
    score: TargetScore,
    *,
    each: bool,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield terms s n c h w and their weights s n 1 1 1, of each step or of whole paths; weight 0: no term."""
    s, n = classes.shape[1], len(images)
    points = images.repeat(s, 1, 1, 1)
    whole, counts = torch.zeros_like(points), points.new_zeros(s * n, 1, 1, 1)
    aims = targets.repeat(s, *(1,) * (targets.ndim - 1))
    for going, terms in _climb(model, points, aims, classes.T.flatten(), steps, step_size, score):
        if each:
            whole, counts = torch.zeros_like(points), torch.zeros_like(counts)
        whole[going] += terms
        counts[going] = 1.0
        if each:
            yield whole.unflatten(0, (s, n)), counts.unflatten(0, (s, n))
    if not each:
        yield whole.unflatten(0, (s, n)), counts.unflatten(0, (s, n))


def _climb(
    model: nn.Module,
    points: Images,
    targets: Target,
    classes: Targets,
    steps: int,
    step_size: float,
    score: TargetScore,
) -> Iterator[tuple[Targets, Images]]:
    """Move the points towards their classes, in place, and yield for each step the rows that moved and their terms."""
    going = torch.arange(len(points), device=points.device)
    for _ in range(steps):
        start = points[going].requires_grad_()
        logits = differentiable(model, start)
        on = logits.argmax(1) != classes[going]
        if not on.any():
            return
        other = scores_of(logits, classes[going], "log_probability" if score == "loss" else score)
        (rise,) = torch.autograd.grad(other.sum(), start, retain_graph=True)
        (slope,) = torch.autograd.grad(scores_of(logits, targets[going], score).sum(), start)
        start, going, slope = start.detach()[on], going[on], slope[on]
        after = (start + step_size * rise[on].sign()).clamp(0, 1)
        points[going] = after
        yield going, slope * (start - after)


def other_classes(model: nn.Module, images: Images, explained: Targets, seeds: Seeds | None, samples: int) -> Classes:
    """Return classes for each image, drawn without repeats among all classes but the explained one.

    seeds: one integer per image. An image's classes depend only on its seed, not on the batch.
    samples: classes for each image, at least 1; all other classes where there are fewer.

    ValueError: `samples` is below 1, the seeds are missing, or the network has one class.
    """
    at_least_one("samples", samples)
    own = needed(seeds, images, "the classes themselves")
    with torch.no_grad():
        known = logits_of(model, images[:1]).shape[1]
    if known < 2:
        raise ValueError(f"{type(model).__name__} has {known} class; expected at least 2: there is no other class")
    numbers = draws.keys(own, known)
    numbers.scatter_(1, explained[:, None].clone(), torch.iinfo(torch.int64).max)  # the target comes last
    return numbers.argsort(dim=1, stable=True)[:, : min(samples, known - 1)]
