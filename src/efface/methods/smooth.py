"""Gradients at noisy copies of the image: their mean, mean square and variance, all from one noise stream."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from efface import draws
from efface.methods.as_gradient import as_gradient
from efface.methods.gradients import gradients_at
from efface.methods.noise import Noise, check_noise, needed, ranges
from efface.models.evaluation import Precision, evaluating_fast
from efface.models.memory import at_least_one
from efface.types import Images, Method, Seeds, Target, TargetScore


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
    """SmoothGrad, SmoothGrad-squared and VarGrad from the same noisy gradients, for the passes of one of them.

    Always smooth_grad_squared = smooth_grad^2 + var_grad. Noisy images may leave [0, 1].

    seeds: one an image; an image's noise depends on its seed alone, not on the batch.
    samples: noisy copies of an image, at least 1; each costs one forward and one backward pass, or what `base` costs.
    noise: standard deviation as a fraction of the image's own range (its maximum minus its minimum over all
        channels), at least 0; or the noise itself, s n c h w with s = samples, added as it is: then without seeds.
    base: what stands for the gradient at a noisy copy: any method whose maps have the images' shape, such as guided
        backpropagation. One that draws gets other seeds at each copy.
    score: what is differentiated, of the target class: logit, log_probability, probability or loss (cross entropy).
    precision: of the passes, fp32 or bf16 (`efface.models.evaluation.Precision`).
    max_batch: noisy copies in one pass, at least 1; bounds the memory, changes maps by rounding only.

    Source: Smilkov et al. 2017 (arXiv:1706.03825); the square from Hooker et al. 2019 (arXiv:1806.10758); the
        variance from Adebayo et al. 2018 (arXiv:1810.03307).
    Differs: the variance is that of the draws themselves (divided by `samples`, not samples - 1), merged chunk by
        chunk after Chan, Golub & LeVeque 1983: a difference of two large means would lose it to rounding.
    """
    at_least_one("samples", samples)
    with evaluating_fast(model, images, allowed=base is None, precision=precision, gradients=samples) as network:
        mean, spread = torch.zeros_like(images), torch.zeros_like(images)  # spread: summed squares around the mean
        noisy = _noisy(images.detach(), seeds, samples, noise)
        drawn: list[Seeds] = []  # for the base, at the copies of the coming pass

        def copied(block: slice, sample: int) -> Images:
            if base is not None and seeds is not None:
                own = draws.fold(seeds[block].to(images.device), sample)
                drawn.append(draws.fold(own, 0))  # not those of the noise
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


def smooth_grad(
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
) -> Images:
    """Mean gradient over noisy copies of the image, signed. Settings and cost: `smooth_grad_family`.

    Source: Smilkov et al. 2017 (arXiv:1706.03825).
    Differs: sign and channels are kept. Gradients are per unit of [0, 1], as those of `gradient`.
    """
    return _one_of_family(
        "smooth_grad", model, images, targets, seeds, samples, noise, base, score, precision, max_batch
    )


def smooth_grad_squared(
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
) -> Images:
    """Mean squared gradient over noisy copies of the image, never negative. Settings and cost: `smooth_grad_family`.

    Source: Hooker et al. 2019 (arXiv:1806.10758).
    """
    return _one_of_family(
        "smooth_grad_squared", model, images, targets, seeds, samples, noise, base, score, precision, max_batch
    )


def var_grad(
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
) -> Images:
    """Variance of the gradient over noisy copies of the image, never negative. Settings and cost: `smooth_grad_family`.

    Source: Adebayo et al. 2018 (arXiv:1810.03307).
    Differs: divided by `samples`, not samples - 1; the ranking is the same.
    """
    return _one_of_family("var_grad", model, images, targets, seeds, samples, noise, base, score, precision, max_batch)


def _one_of_family(
    name: str,
    model: nn.Module,
    images: Images,
    targets: Target,
    seeds: Seeds | None,
    samples: int,
    noise: Noise,
    base: Method | None,
    score: TargetScore,
    precision: Precision,
    max_batch: int,
) -> Images:
    passes = partial(smooth_grad_family, seeds=seeds, samples=samples, noise=noise, base=base, score=score)
    return passes(model, images, targets, precision=precision, max_batch=max_batch)[name]


def _noisy(images: Images, seeds: Seeds | None, samples: int, noise: Noise) -> Callable[[slice, int], Images]:
    """The function (block, sample number) -> noisy images of that block."""
    check_noise(noise, samples, images)
    if isinstance(noise, Tensor):
        return lambda block, sample: images[block] + noise[sample, block].detach().to(images)
    own, deviation = needed(seeds, images, "the noise itself"), noise * ranges(images)

    def noisy(block: slice, sample: int) -> Images:
        standard = draws.normal(draws.fold(own[block], sample), tuple(images.shape[1:]))
        return images[block] + deviation[block] * standard.to(images.dtype)

    return noisy
