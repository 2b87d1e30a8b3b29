"""The gradient of the target logit, alone and times the image."""

import torch
from torch import nn

from efface.methods.gradients import gradient_at
from efface.models.evaluation import Precision, evaluating_fast
from efface.models.memory import blocks
from efface.types import Images, Target, TargetScore


def gradient(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    score: TargetScore = "logit",
    precision: Precision = "fp32",
    max_batch: int = 256,
) -> Images:
    """Gradient of the target logit with respect to the image, signed: one forward and one backward pass an image.

    score: what is differentiated, of the target class: logit, log_probability, probability or loss (cross entropy).
    precision: of the passes; `bf16` is refused, `bf16_forced` is not (`efface.models.evaluation.Precision`).
    max_batch: images in one pass, at least 1; bounds the memory, changes no map.

    Source: Simonyan, Vedaldi & Zisserman 2014, section 3 (arXiv:1312.6034).
    Differs: sign and channels are kept; `efface.erase.post.absolute` and `channel_max` make the paper's map. The
        gradient is one per unit of [0, 1]: at a normalised image it is this times each channel's standard deviation.
    """
    with evaluating_fast(model, images, precision=precision) as network:
        return torch.cat(
            [gradient_at(network, images[block], targets[block], score) for block in blocks(len(images), max_batch)]
        )


def input_x_gradient(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    score: TargetScore = "logit",
    precision: Precision = "fp32",
    max_batch: int = 256,
) -> Images:
    """Image times gradient of the target logit, signed: one forward and one backward pass an image.

    Sums over pixels to the logit on a network that is piecewise linear and has no biases. A black pixel gets 0.

    score: what is differentiated, of the target class: logit, log_probability, probability or loss (cross entropy).
    precision: of the passes; `bf16` is refused, `bf16_forced` is not (`efface.models.evaluation.Precision`).
    max_batch: images in one pass, at least 1; bounds the memory, changes no map.

    Source: Shrikumar, Greenside, Shcherbina & Kundaje 2016 (arXiv:1605.01713).
    Differs: the image is the one in [0, 1], before the network's own normalisation.
    """
    return images.detach() * gradient(model, images, targets, score=score, precision=precision, max_batch=max_batch)
