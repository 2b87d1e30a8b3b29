"""Images that a network generates for a class, from noise or from an image, by ascent on the logit of the class.

They show what the network has learnt about the class, from its input gradient alone. A weight decay pulls them to grey.
The steps have no noise, so the result depends only on the start and the settings.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from efface import execute
from efface.base import draws
from efface.base.shown import shown
from efface.base.types import Images, Seeds, Targets
from efface.methods.gradients import gradient_at
from efface.models.evaluation import evaluating_fast
from efface.models.memory import at_least_one, blocks

GREY = 0.5
"""The middle of [0, 1]. It is the mean of the noise, and the value that the decay pulls to."""
COST = 3
"""Forward passes that one step counts: one forward, and about two for the backward pass."""

Advance = Callable[[float], None]
Clip = Literal["each", "last"]


class Sampling(BaseModel):
    """Settings of the samples: a study's `samples:`, and the settings of the metric `gan_test`.

    count: number of samples.
    steps, lr, decay: as in `maximise`.
    deviation: standard deviation of the initial noise, at least 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    count: PositiveInt = 1000
    steps: PositiveInt = 500
    lr: PositiveFloat = 0.1
    decay: NonNegativeFloat = 0.01
    deviation: float = Field(default=0.2, ge=0)

    @property
    def costs(self) -> float:
        """Forward passes of all samples."""
        return float(COST * self.steps * self.count)

    def identity(self) -> dict[str, Any]:
        """Return what a sample depends on besides network, class and seed. The number of samples is not part of it."""
        return self.model_dump(exclude={"count"})


class Denoised(NamedTuple):
    """Noisy images, and the images that the ascent made of them."""

    noisy: Images
    images: Images


def maximise(
    network: nn.Module,
    targets: Targets,
    start: Images,
    *,
    steps: int = 500,
    lr: float = 0.1,
    decay: float = 0.01,
    clip: Clip = "each",
    max_batch: int = 256,
    advance: Advance = execute.advance,
) -> Images:
    """Images after gradient ascent on the logit of their target.

    All results lie in [0, 1]. An image does not depend on the rest of its batch. The network runs in evaluation mode
    and is restored. `start` and `targets` are not changed.
    Formula: x <- clip(x + lr * (gradient of the logit - decay * (x - 0.5))).

    start: images where the ascent begins, for example `grey_noise`. They may leave [0, 1].
    steps: number of steps, at least 1. Each costs one forward and one backward pass of all images.
    lr: length of a step, above 0.
    decay: pull towards grey, at least 0. A pixel without influence on the logit approaches grey by the factor
        1 - lr * decay in each step.
    clip: "each": clip after every step. "last": the iterate is free, the network sees it clipped, and it is clipped at
        the end. A value outside [0, 1] then has no gradient and returns by the decay alone. A value of exactly 0 or 1
        has its whole gradient: the clip has slope 1 there, whatever the version of torch.
    max_batch: images in one pass.
    advance: called with 3 forward passes for each image and step.

    Source: Srinivas & Fleuret 2021 (arXiv:2006.09128): their sampler; with clip="last" their activation maximisation.
    Differs: they call it SGLD, but it has no Langevin noise. The iterate is a copy, never the caller's tensor. Their
        code takes the slope of torch's clamp. It was 1 at a bound when they ran it, as here; newer versions have 0,
        with which no value that starts at a bound would move. Clipped noise starts many values there.
    """
    if len(targets) != len(start):
        raise ValueError(f"{len(targets)} targets for {len(start)} images to start from; expected one target an image")
    if clip not in ("each", "last"):
        raise ValueError(f"clip is {shown(clip)}; expected 'each' (after every step) or 'last' (only at the end)")
    at_least_one("steps", steps)
    if not 0 < lr < math.inf:
        raise ValueError(f"lr is {lr}; expected a number above 0: raise it")
    if not 0 <= decay < math.inf:
        raise ValueError(f"decay is {decay}; expected a number of at least 0: raise it")
    with evaluating_fast(network, start) as fast:
        images = [
            _climbed(fast, targets[block], start[block], steps, lr, decay, clip, advance)
            for block in blocks(len(start), max_batch)
        ]
    return torch.cat(images) if images else start.clone()


def grey_noise(seeds: Seeds, shape: tuple[int, int, int], *, deviation: float = 0.2) -> Images:
    """Return normal noise around grey, clipped to [0, 1], of shape c h w for each seed.

    deviation: standard deviation before clipping, in units of [0, 1].
    """
    return draws.normal(seeds, shape).mul_(deviation).add_(GREY).clamp_(0, 1)


def samples(
    network: nn.Module,
    targets: Targets,
    seeds: Seeds,
    shape: tuple[int, int, int],
    settings: Sampling,
    *,
    max_batch: int = 256,
    advance: Advance = execute.advance,
) -> Images:
    """Return an image of c h w for each target, from noise of its own seed. `settings.count` is not used."""
    start = grey_noise(seeds, shape, deviation=settings.deviation)
    return maximise(
        network,
        targets,
        start,
        steps=settings.steps,
        lr=settings.lr,
        decay=settings.decay,
        max_batch=max_batch,
        advance=advance,
    )


def denoise(
    network: nn.Module,
    images: Images,
    targets: Targets,
    *,
    seeds: Seeds | None = None,
    noise: float | Tensor = 0.1,
    steps: int = 200,
    lr: float = 0.01,
    decay: float = 0.0,
    max_batch: int = 256,
    advance: Advance = execute.advance,
) -> Denoised:
    """Add noise to images, then climb the logit of their target from the noisy images.

    The noisy images may leave [0, 1]. The ascent starts at the unclipped values.

    noise: standard deviation in units of [0, 1], which needs `seeds`; or the noise itself.
    steps, lr, decay, max_batch, advance: as in `maximise`.

    Source: Srinivas & Fleuret 2021 (arXiv:2006.09128), its code for the denoised samples.
    """
    if isinstance(noise, Tensor):
        if noise.shape != images.shape:
            raise ValueError(f"noise has shape {tuple(noise.shape)}; expected {tuple(images.shape)}, the images' own")
        noisy = images + noise
    elif seeds is None:
        raise ValueError("seeds are missing; expected one integer an image: pass seeds, or the noise itself")
    else:
        drawn = draws.normal(seeds.to(images.device), tuple(images.shape[1:]))
        noisy = images + noise * drawn.to(images.dtype)
    climbed = maximise(network, targets, noisy, steps=steps, lr=lr, decay=decay, max_batch=max_batch, advance=advance)
    return Denoised(noisy, climbed)


def _climbed(
    network: nn.Module,
    targets: Targets,
    start: Images,
    steps: int,
    lr: float,
    decay: float,
    clip: Clip,
    advance: Advance,
) -> Images:
    images = start.detach().clone()
    for _ in range(steps):
        if clip == "each":
            gradient = gradient_at(network, images, targets)
        else:
            # torch.clamp had slope 1 at its bounds until 2026 and has 0 since; both bounds belong to the inside here
            inside = (images >= 0) & (images <= 1)
            gradient = gradient_at(network, images.clamp(0, 1), targets) * inside
        images = images + lr * (gradient - decay * (images - GREY))
        if clip == "each":
            images.clamp_(0, 1)
        advance(float(COST * len(images)))
    if images.isnan().any():
        raise ValueError(
            f"the ascent of {len(images)} images ended at values that are no numbers: the network's gradient is not "
            "finite; lower lr, or check the network's weights"
        )
    return images.clamp_(0, 1)
