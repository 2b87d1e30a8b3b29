"""Maps that know nothing of the network: what an attribution method has to beat."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from efface import draws
from efface.types import Images, Maps, Seeds, Targets


def random(model: nn.Module, images: Images, targets: Targets, *, seeds: Seeds, per_channel: bool = False) -> Maps:
    """Independent numbers in [0, 1), one a pixel: a fixed random ranking for each image. No pass of the network.

    seeds: one an image.
    per_channel: a number for each channel of a pixel, for studies that rank features.
    """
    del model, targets
    return draws.uniform(seeds.to(images.device), tuple(images.shape[1:] if per_channel else images.shape[2:]))


def random_resampled(model: nn.Module, images: Images, targets: Targets, *, seeds: Seeds) -> Seeds:
    """The seeds themselves: a training draws a new random ranking from them each epoch. No pass of the network.

    A training on masks that change is regularised by them, which flatters this control against `random`.

    seeds: one an image.

    Source: the released code of Hooker et al. 2019 (arXiv:1806.10758), whose random baseline draws at every read.
    """
    del model, images, targets
    return seeds


def sobel(model: nn.Module, images: Images, targets: Targets) -> Float[Tensor, "n h w"]:
    """Length of the image's own gradient by the Sobel operator, mean over channels: edges. No pass of the network.

    The border is repeated outwards, so a flat image is 0 everywhere.

    Source: the edge control of Hooker et al. 2019 (arXiv:1806.10758).
    """
    del model, targets
    images = images.detach()
    across = images.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([across, across.T])[:, None]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
    slopes = F.conv2d(padded, kernels)
    return slopes.square().sum(1).sqrt().unflatten(0, images.shape[:2]).mean(1)


def true_mask(
    model: nn.Module, images: Images, targets: Targets, *, masks: Bool[Tensor, "n h w"] | None = None
) -> Float[Tensor, "n h w"]:
    """1 where the true object is, 0 elsewhere: the best map there is, on data that know their object. No pass.

    masks: True where the object is; the data set's own.
    """
    del model, targets
    if masks is None:
        raise ValueError(
            "true_mask: the data set has no masks of the true object; expected n h w booleans: choose a data set that "
            "has them, such as efface.data.patches.patches, or drop this method"
        )
    return masks.to(images.device, images.dtype)
