"""Integrated gradients along the straight line from one baseline to the image."""

import torch
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Method, Seeds, Target, TargetScore
from efface.methods.as_gradient import as_gradient
from efface.methods.gradients import gradients_at
from efface.methods.noise import Noise, check_noise, gaussian, needed
from efface.methods.path.baseline import Baseline, start_of
from efface.methods.path.grid import Line, Rule, grid_of
from efface.models.evaluation import Precision, evaluating_fast
from efface.models.memory import at_least_one


def integrated_gradients(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    seeds: Seeds | None = None,
    steps: int = 50,
    rule: Rule = "midpoint",
    baseline: Baseline = 0.0,
    sigma: float | None = None,
    alphas: Line | None = None,
    weights: Line | None = None,
    base: Method | None = None,
    score: TargetScore = "logit",
    precision: Precision = "fp32",
    max_batch: int = 256,
) -> Images:
    """Gradient of the target logit averaged along the straight line from a baseline, times the way travelled.

    Formula: map = (x - x0) * sum over k of w_k grad f(x0 + alpha_k (x - x0)), with x0 the baseline.

    Summed over pixels, a map equals logit(image) - logit(baseline), up to the rule's error.

    seeds: one integer per image, only for a `base` that draws.
    steps: points on the line, at least 1; each costs one forward and one backward pass.
    rule: positions and weights of the points: midpoint, gauss_legendre, trapezoid, left, right, closed or interior.
        `efface.methods.path.grid.Rule` defines them.
    baseline: a number, or one per channel, in [0, 1]; `mean`, the image's mean of each channel; `blur`, the blurred
        image; or the baseline images themselves, n c h w or c h w.
    sigma: standard deviation of that blur, in pixels above 0; by default 50/224 of the image's shorter side.
    alphas: the points themselves, 0 the baseline and 1 the image, in place of `steps` and `rule`.
    weights: weights of these points; by default equal, with sum 1.
    base: another method in place of the gradient, such as `efface.methods.backprop.guided_backprop`. Its maps must
        have the images' shape. A base that draws gets different seeds at each point.
    score: score of the target class to differentiate: logit, log_probability, probability or loss (cross entropy).
    precision: number format of the passes, fp32 or bf16 (`efface.models.evaluation.Precision`).
    max_batch: most points in one pass, at least 1. It limits the memory and changes maps by rounding only.

    Source: Sundararajan, Taly & Yan 2017, section 5 (arXiv:1703.01365).
    Differs: the default is the midpoint rule instead of the right-hand sum (`right`).
    """
    grid = grid_of(rule, steps, alphas, weights)
    images = images.detach()
    count = len(grid.weights)
    with evaluating_fast(model, images, allowed=base is None, precision=precision, gradients=count) as network:
        way = images - start_of(images, baseline, sigma)
        total = torch.zeros_like(way)
        drawn: list[Seeds] = []  # seeds of the points in the next pass, in the order of the points

        def point(block: slice, step: int) -> Images:
            if seeds is not None:
                drawn.append(draws.fold(seeds[block].to(images.device), step))
            return images[block] - way[block] * (1 - grid.alpha(block, 0, step))

        counts = way.new_tensor(grid.weights)
        stands = None if base is None else as_gradient(base, score, max_batch, drawn)
        passes = gradients_at(network, point, targets, count=len(counts), max_batch=max_batch, score=score, base=stands)
        for block, first, gradients in passes:
            total[block] += torch.tensordot(counts[first : first + len(gradients)], gradients, dims=1)
        return way * total


def smooth_integrated_gradients(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    seeds: Seeds | None = None,
    steps: int = 25,
    samples: int = 25,
    noise: Noise = 0.15,
    rule: Rule = "midpoint",
    baseline: Baseline = 0.0,
    sigma: float | None = None,
    score: TargetScore = "logit",
    precision: Precision = "fp32",
    max_batch: int = 256,
) -> Images:
    """Integrated gradients with SmoothGrad in place of the gradient at each point of the line (SG-IG), signed.

    seeds: one integer per image. The noise depends on the image's seed, the point and the sample, not on the batch.
    steps: points on the line, at least 1.
    samples: noisy copies of each point, at least 1. In all, steps x samples forward and backward passes.
    noise: standard deviation, at least 0, as a fraction of the range of the point (its maximum minus its minimum over
        all channels). Or the noise itself, s n c h w with s = steps x samples, all samples of one point together; it
        is added without scaling, and no seeds are needed.
    rule, baseline, sigma, score, precision: as in `integrated_gradients`.
    max_batch: most noisy copies in one pass, at least 1. It limits the memory and changes maps by rounding only.

    Source: Schwarzenberg & Castle 2020 (arXiv:2007.10685), who compare it with pattern-guided methods.
    Differs: the samples are independent, and the range is that of the point. The released code accumulates noise and
        gradients from one sample to the next, and uses one range for the whole batch. Its points are those of rule
        `interior`, and its baseline is the mean colour of ImageNet.
    """
    at_least_one("samples", samples)
    grid = grid_of(rule, steps)
    check_noise(noise, len(grid.weights) * samples, images)
    images = images.detach()
    own = None if isinstance(noise, Tensor) else needed(seeds, images, "the noise itself")
    with evaluating_fast(model, images, precision=precision, gradients=len(grid.weights) * samples) as network:
        way = images - start_of(images, baseline, sigma)
        total = torch.zeros_like(way)

        def noisy(block: slice, number: int) -> Images:
            step, sample = divmod(number, samples)
            point = images[block] - way[block] * (1 - grid.alpha(block, 0, step))
            if own is None or isinstance(noise, Tensor):
                assert isinstance(noise, Tensor)
                return point + noise[number, block].to(point)
            return point + gaussian(point, draws.fold(draws.fold(own[block], step), sample), noise)

        counts = way.new_tensor(grid.weights).repeat_interleave(samples) / samples
        for block, first, gradients in gradients_at(
            network, noisy, targets, count=len(counts), max_batch=max_batch, score=score
        ):
            total[block] += torch.tensordot(counts[first : first + len(gradients)], gradients, dims=1)
        return way * total
