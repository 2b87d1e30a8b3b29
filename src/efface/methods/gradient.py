"""Gradient of the target logit, alone and times the image."""

from typing import Any

import torch
from torch import nn

from efface.base.types import Images, Target, TargetScore
from efface.methods.gradients import gradient_at
from efface.models.evaluation import Precision, evaluating_fast
from efface.models.memory import blocks
from efface.plug.shared_settings import with_settings_of


def gradient(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    score: TargetScore = "logit",
    precision: Precision = "fp32",
    max_batch: int = 256,
) -> Images:
    """Gradient of the target logit with respect to the image, signed: one forward and one backward pass per image.

    Formula: map = d score / d x.

    score: score of the target class to differentiate: logit, log_probability, probability or loss (cross entropy).
    precision: number format of the passes: fp32 or bf16_forced; bf16 is refused (`efface.models.evaluation.Precision`).
    max_batch: most images in one pass, at least 1. It limits the memory and changes no map.

    Source: Simonyan, Vedaldi & Zisserman 2014, section 3 (arXiv:1312.6034).
    Differs: sign and channels are kept; `post: [absolute, channel_max]` gives the paper's map. The
        gradient is with respect to the image in [0, 1]. The gradient with respect to a normalised image is this one
        times the standard deviation of each channel.
    """
    with evaluating_fast(model, images, precision=precision) as network:
        return torch.cat(
            [gradient_at(network, images[block], targets[block], score) for block in blocks(len(images), max_batch)]
        )


@with_settings_of(gradient)
def input_x_gradient(model: nn.Module, images: Images, targets: Target, **settings: Any) -> Images:
    """Image times gradient of the target logit, signed: one forward and one backward pass per image.

    If the network is piecewise linear and has no biases, the map sums over pixels to the logit. A black pixel gets 0.

    Formula: map = x * d score / d x.

    The settings are those of `gradient`.

    Source: Shrikumar, Greenside, Shcherbina & Kundaje 2016 (arXiv:1605.01713).
    Differs: the image is the one in [0, 1], before the network's own normalisation.
    """
    return images.detach() * gradient(model, images, targets, **settings)
