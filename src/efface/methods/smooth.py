"""Gradients at noisy copies of the image: their mean, mean square and variance, with the same noise."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Method, Seeds, Target, TargetScore
from efface.methods.as_gradient import as_gradient
from efface.methods.gradients import gradients_at
from efface.methods.noise import Noise, check_noise, needed, ranges
from efface.models.evaluation import Precision, evaluating_fast
from efface.models.memory import at_least_one
from efface.plug.shared_settings import with_settings_of


def smooth_grad_family(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    seeds: Seeds | None = None,
    samples: int = 50,
    noise: Noise = 0.15,
    base: Method | None = None,
    score: TargetScore = "logit",
    precision: Precision = "fp32",
    max_batch: int = 256,
) -> dict[str, Images]:
    """SmoothGrad, SmoothGrad-squared and VarGrad from the same noisy gradients, at the cost of one of them.

    Formula: smooth_grad = mean g_s, smooth_grad_squared = mean g_s^2, var_grad = mean (g_s - smooth_grad)^2, with g_s
        the gradient at x + noise_s.

    So smooth_grad_squared = smooth_grad^2 + var_grad. Noisy images may leave [0, 1].

    seeds: one integer per image. An image's noise depends only on its seed, not on the batch.
    samples: noisy copies of an image, at least 1. Each costs one forward and one backward pass, or the cost of `base`.
    noise: standard deviation, at least 0, as a fraction of the image's range (its maximum minus its minimum over all
        channels). Or the noise itself, s n c h w with s = samples. It is added without scaling; no seeds are needed.
    base: method in place of the gradient at a noisy copy, such as guided backpropagation. Its maps must have the
        images' shape. A base that draws gets different seeds at each copy.
    score: score of the target class to differentiate: logit, log_probability, probability or loss (cross entropy).
    precision: number format of the passes, fp32 or bf16 (`efface.models.evaluation.Precision`).
    max_batch: most noisy copies in one pass, at least 1. It limits the memory and changes maps by rounding only.

    Source: Smilkov et al. 2017 (arXiv:1706.03825); the square from Hooker et al. 2019 (arXiv:1806.10758); the
        variance from Adebayo et al. 2018 (arXiv:1810.03307).
    Differs: the variance is that of the samples (divided by `samples`, not samples - 1). It is merged pass by pass
        after Chan, Golub & LeVeque 1983, because a difference of two large means would lose it to rounding.
    """
    at_least_one("samples", samples)
    with evaluating_fast(model, images, allowed=base is None, precision=precision, gradients=samples) as network:
        mean, spread = torch.zeros_like(images), torch.zeros_like(images)  # spread: sum of squares around the mean
        noisy = _noisy(images.detach(), seeds, samples, noise)
        drawn: list[Seeds] = []  # seeds of the base at the copies of the next pass

        def copied(block: slice, sample: int) -> Images:
            if base is not None and seeds is not None:
                own = draws.fold(seeds[block].to(images.device), sample)
                drawn.append(draws.fold(own, 0))  # different from the seeds of the noise
            return noisy(block, sample)

        stands = None if base is None else as_gradient(base, score, max_batch, drawn)
        for block, before, gradients in gradients_at(
            network, copied, targets, count=samples, max_batch=max_batch, score=score, base=stands
        ):
            new, centre = len(gradients), gradients.mean(0)
            shift = centre - mean[block]
            spread[block] += (gradients - centre).square().sum(0) + shift.square() * (before * new / (before + new))
            mean[block] += shift * (new / (before + new))
    variance = spread / samples
    return {"smooth_grad": mean, "smooth_grad_squared": mean.square() + variance, "var_grad": variance}


@with_settings_of(smooth_grad_family)
def smooth_grad(model: nn.Module, images: Images, targets: Target, **settings: Any) -> Images:
    """Mean gradient over noisy copies of the image, signed. Settings and cost: `smooth_grad_family`.

    Source: Smilkov et al. 2017 (arXiv:1706.03825).
    Differs: sign and channels are kept. Gradients are with respect to the image in [0, 1], as in `gradient`.
    """
    return smooth_grad_family(model, images, targets, **settings)["smooth_grad"]


@with_settings_of(smooth_grad_family)
def smooth_grad_squared(model: nn.Module, images: Images, targets: Target, **settings: Any) -> Images:
    """Mean squared gradient over noisy copies of the image, never negative. Settings and cost: `smooth_grad_family`.

    Source: Hooker et al. 2019 (arXiv:1806.10758).
    """
    return smooth_grad_family(model, images, targets, **settings)["smooth_grad_squared"]


@with_settings_of(smooth_grad_family)
def var_grad(model: nn.Module, images: Images, targets: Target, **settings: Any) -> Images:
    """Variance of the gradient over noisy copies of the image, never negative. Settings and cost: `smooth_grad_family`.

    Source: Adebayo et al. 2018 (arXiv:1810.03307).
    Differs: divided by `samples`, not samples - 1; the ranking is the same.
    """
    return smooth_grad_family(model, images, targets, **settings)["var_grad"]


def _noisy(images: Images, seeds: Seeds | None, samples: int, noise: Noise) -> Callable[[slice, int], Images]:
    """Return a function (block, number of the sample) -> noisy images of that block."""
    check_noise(noise, samples, images)
    if isinstance(noise, Tensor):
        return lambda block, sample: images[block] + noise[sample, block].detach().to(images)
    own, deviation = needed(seeds, images, "the noise itself"), noise * ranges(images)

    def noisy(block: slice, sample: int) -> Images:
        standard = draws.normal(draws.fold(own[block], sample), tuple(images.shape[1:]))
        return images[block] + deviation[block] * standard.to(images.dtype)

    return noisy
