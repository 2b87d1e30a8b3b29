"""Integrated gradients from several references that are drawn for each image."""

from torch import Tensor, nn

from efface import draws
from efface.methods.noise import Noise, check_noise, gaussian
from efface.methods.path.average import Drawn, Recalibrate, References, average_over_paths, references_of
from efface.methods.path.grid import Alphas, Rule, grid_of
from efface.models.evaluation import Precision
from efface.types import Images, Seeds, Target, TargetScore


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

    Signed unless re-calibrated. Summed over pixels, a map that is not equals logit(image) less the references' mean
    logit, up to the rule's error.

    seeds: one an image; an image's references depend on its seed alone, not on the batch.
    samples: references of an image, at least 1; samples x steps forward and backward passes in all, less where every
        path ends at the image itself, which is computed once.
    steps: points on the line from each reference, at least 1.
    rule: where the points are and what they weigh: `efface.methods.path.grid.Rule`.
    references: the references themselves, in place of `samples`: then without seeds.
    alphas: the points of every line, or n r p of each line, 0 the reference and 1 the image, in place of `steps` and
        `rule`.
    recalibrate: none; or what the average is restricted to, where it is not below zero, element by element: whole
        references, or single points (`efface.methods.path.average.Recalibrate`). Costs no pass.
    score: what is differentiated, of the target class: logit, log_probability, probability or loss (cross entropy).
    precision: of the passes, fp32 or bf16 (`efface.models.evaluation.Precision`).
    max_batch: points in one pass, at least 1; bounds the memory, changes maps by rounding only: measured, 1e-3 of a
        map's maximum at one point a pass, in single precision, with ReLUs.

    Source: Sturmfels, Lundberg & Lee 2020 (doi:10.23915/distill.00022); number of references, points and
        re-calibration from Yang et al., ICLR 2023.
    Differs: every reference sees every point. In the released code a reference sees steps / gcd(samples, steps) of
        them: one alone only where samples is a multiple of steps.
    """

    def draw(images: Images, seeds: Seeds) -> Images:
        return draws.uniform(seeds, tuple(images.shape[1:])).to(images.dtype)

    images, grid = images.detach(), grid_of(rule, steps, alphas)
    drawn = references_of(images, references, samples, seeds, draw)
    return average_over_paths(
        model, images, targets, drawn, grid, recalibrate, score=score, precision=precision, max_batch=max_batch
    )


def ig_smooth(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    seeds: Seeds | None = None,
    samples: int = 10,
    steps: int = 5,
    noise: Noise = 0.15,
    rule: Rule = "closed",
    references: References | None = None,
    alphas: Alphas | None = None,
    recalibrate: Recalibrate = "none",
    score: TargetScore = "logit",
    precision: Precision = "fp32",
    max_batch: int = 256,
) -> Images:
    """Integrated gradients averaged over references that are noisy copies of the image (IG-SG).

    Signed unless re-calibrated.

    noise: standard deviation as a fraction of the image's own range (its maximum minus its minimum over all
        channels), at least 0; or the noise itself, s n c h w with s = samples: then without seeds. Noisy copies are
        clipped to [0, 1].
    Other settings and cost: `ig_uniform`.

    Source: Smilkov et al. 2017 (arXiv:1706.03825) for the noise; as a set of references, Yang et al., ICLR 2023.
    Differs: every reference sees every point, and an image's references are noisy copies of itself. The released code
        pairs them with points as for `ig_uniform`, and it mixes up those of a batch.
    """
    images, grid = images.detach(), grid_of(rule, steps, alphas)
    drawn = _around(images, references, samples, seeds, noise)
    return average_over_paths(
        model, images, targets, drawn, grid, recalibrate, score=score, precision=precision, max_batch=max_batch
    )


def ig_squared(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    seeds: Seeds | None = None,
    samples: int = 10,
    steps: int = 5,
    noise: Noise = 0.15,
    rule: Rule = "closed",
    references: References | None = None,
    alphas: Alphas | None = None,
    recalibrate: Recalibrate = "none",
    score: TargetScore = "logit",
    precision: Precision = "fp32",
    max_batch: int = 256,
) -> Images:
    """Square of the mean gradient along the line times the way, averaged over noisy copies of the image (IG-SQ).

    It has the way's sign, unless re-calibrated: then it is the mean square of those terms of `ig_smooth` that are kept.

    Settings and cost: `ig_smooth`.

    Source: Hooker et al. 2019 (arXiv:1806.10758) for the square; as a set of references, Yang et al., ICLR 2023.
    Differs: as `ig_smooth`. Without re-calibration the map is per unit of [0, 1]: at normalised images it is this times
        each channel's standard deviation.
    """
    images, grid = images.detach(), grid_of(rule, steps, alphas)
    drawn = _around(images, references, samples, seeds, noise)
    return average_over_paths(
        model,
        images,
        targets,
        drawn,
        grid,
        recalibrate,
        squared=True,
        score=score,
        precision=precision,
        max_batch=max_batch,
    )


def _around(images: Images, references: References | None, samples: int, seeds: Seeds | None, noise: Noise) -> Drawn:
    """Noisy copies of each image as its references; or those that are given."""
    check_noise(noise, samples, images)
    if isinstance(noise, Tensor):
        if references is not None:
            raise ValueError("noise and references are both given; expected one of them: leave the other out")
        references = (images + noise.detach().to(images)).clamp(0, 1).transpose(0, 1)

    def draw(images: Images, seeds: Seeds) -> Images:
        assert not isinstance(noise, Tensor)
        return (images + gaussian(images, seeds, noise)).clamp(0, 1)

    return references_of(images, references, samples, seeds, draw)
