"""Integrated gradients from several references that are drawn for each image."""

from typing import Any

from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Seeds, Target, TargetScore
from efface.methods.noise import Noise, check_noise, gaussian
from efface.methods.path.average import Drawn, Recalibrate, References, average_over_paths, references_of
from efface.methods.path.grid import Alphas, Rule, grid_of
from efface.models.evaluation import Precision
from efface.plug.shared_settings import with_settings_of


def ig_uniform(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    seeds: Seeds | None = None,
    samples: int = 10,
    steps: int = 5,
    rule: Rule = "closed",
    references: References | None = None,
    alphas: Alphas | None = None,
    recalibrate: Recalibrate = "none",
    score: TargetScore = "logit",
    precision: Precision = "fp32",
    max_batch: int = 256,
) -> Images:
    """Integrated gradients averaged over references of uniform noise.

    Formula: map = mean over r of (x - r) * sum over k of w_k grad f(r + alpha_k (x - r)), r uniform in [0, 1).

    The map is signed unless it is re-calibrated. Summed over pixels, a map without re-calibration equals logit(image)
    minus the mean logit of the references, up to the rule's error.

    seeds: one integer per image. An image's references depend only on its seed, not on the batch.
    samples: references of an image, at least 1. In all, samples x steps forward and backward passes. If every path
        ends at the image itself, the gradient there is computed only once.
    steps: points on the line from each reference, at least 1.
    rule: positions and weights of the points: `efface.methods.path.grid.Rule`.
    references: the references themselves, in place of `samples`. Then no seeds are needed.
    alphas: the points, 0 the reference and 1 the image, in place of `steps` and `rule`: one row for all, or n r p.
    recalibrate: none; or, for each element, average only the contributions that are not below zero: of whole
        `references`, or of single `points` (`efface.methods.path.average.Recalibrate`). Costs no pass.
    score: score of the target class to differentiate: logit, log_probability, probability or loss (cross entropy).
    precision: number format of the passes, fp32 or bf16 (`efface.models.evaluation.Precision`).
    max_batch: most points in one pass, at least 1. It limits the memory and changes maps by rounding only. With ReLUs
        in single precision, we measured 1e-3 of a map's maximum at one point per pass.

    Source: Sturmfels, Lundberg & Lee 2020 (doi:10.23915/distill.00022); number of references, points and
        re-calibration from Yang et al., ICLR 2023.
    Differs: every reference is used with every point. The released code uses each reference with only
        steps / gcd(samples, steps) points, which is one point where samples is a multiple of steps.
    """

    def draw(images: Images, seeds: Seeds) -> Images:
        return draws.uniform(seeds, tuple(images.shape[1:])).to(images.dtype)

    images, grid = images.detach(), grid_of(rule, steps, alphas)
    drawn = references_of(images, references, samples, seeds, draw)
    return average_over_paths(
        model, images, targets, drawn, grid, recalibrate, score=score, precision=precision, max_batch=max_batch
    )


@with_settings_of(ig_uniform)
def ig_smooth(model: nn.Module, images: Images, targets: Target, *, noise: Noise = 0.15, **settings: Any) -> Images:
    """Integrated gradients averaged over references that are noisy copies of the image (IG-SG).

    The map is signed unless it is re-calibrated. The other settings and the cost are those of `ig_uniform`.

    noise: standard deviation, at least 0, as a fraction of the image's range (its maximum minus its minimum over all
        channels). Or the noise itself, s n c h w with s = samples; then no seeds are needed. Noisy copies are clipped
        to [0, 1].

    Source: Smilkov et al. 2017 (arXiv:1706.03825) for the noise; as a set of references, Yang et al., ICLR 2023.
    Differs: every reference is used with every point, and an image's references are noisy copies of this image. The
        released code pairs references with points as for `ig_uniform`, and mixes up the references of a batch.
    """
    return _from_noisy_copies(model, images, targets, noise=noise, squared=False, **settings)


@with_settings_of(ig_smooth)
def ig_squared(model: nn.Module, images: Images, targets: Target, **settings: Any) -> Images:
    """Square of the mean gradient along the line times the way, averaged over noisy copies of the image (IG-SQ).

    Formula: map = mean over r of (x - r) * (sum over k of w_k grad f(r + alpha_k (x - r)))^2, r noisy copies of x.

    The map has the sign of the way x - r. A re-calibrated map is the mean square of the kept terms of `ig_smooth`.
    Settings and cost are those of `ig_smooth`.

    Source: Hooker et al. 2019 (arXiv:1806.10758) for the square; as a set of references, Yang et al., ICLR 2023.
    Differs: as `ig_smooth`. Without re-calibration, the gradient is with respect to the image in [0, 1]. For normalised
        images the map is this one times the standard deviation of each channel.
    """
    return _from_noisy_copies(model, images, targets, squared=True, **settings)


def _from_noisy_copies(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    noise: Noise,
    squared: bool,
    seeds: Seeds | None,
    samples: int,
    steps: int,
    rule: Rule,
    references: References | None,
    alphas: Alphas | None,
    recalibrate: Recalibrate,
    **passes: Any,
) -> Images:
    """Return the average over paths from noisy copies of each image. Passes: `average_over_paths`' other settings."""
    images, grid = images.detach(), grid_of(rule, steps, alphas)
    drawn = _around(images, references, samples, seeds, noise)
    return average_over_paths(model, images, targets, drawn, grid, recalibrate, squared=squared, **passes)


def _around(images: Images, references: References | None, samples: int, seeds: Seeds | None, noise: Noise) -> Drawn:
    """Return noisy copies of each image as its references, or the given references."""
    check_noise(noise, samples, images)
    if isinstance(noise, Tensor):
        if references is not None:
            raise ValueError("noise and references are both given; expected one of them: leave the other out")
        references = (images + noise.detach().to(images)).clamp(0, 1).transpose(0, 1)

    def draw(images: Images, seeds: Seeds) -> Images:
        assert not isinstance(noise, Tensor)
        return (images + gaussian(images, seeds, noise)).clamp(0, 1)

    return references_of(images, references, samples, seeds, draw)
