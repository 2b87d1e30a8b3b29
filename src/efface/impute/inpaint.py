"""Inpainting by scikit-image: a smooth surface through the kept pixels."""

import importlib.util

import numpy as np
import torch

from efface.base.types import Images, Mask
from efface.impute.fill import Colour, for_channels, unknown

_MISSING = "inpaint needs scikit-image, which is not installed; run: pip install 'efface[inpaint]'"


def inpaint(images: Images, removed: Mask, *, mean: Colour | None = None) -> Images:
    """Solution of the biharmonic equation: the surface that bends least between the kept pixels, clipped to [0, 1].

    Each channel is solved for itself, one image after the other, on one core. Measured for scattered pixels: 0.01 s
    for 32 x 32 x 3 without half of its pixels; for 224 x 224 x 3 0.3 s without half, and 1.7 s without 90 %.

    mean: the data set's channel means, the colour of an image without kept pixels; 0.5 without them.

    Source: Damelin & Hoang 2018 (doi:10.1155/2018/3950312), in scikit-image; as the fill of a metric, Blücher,
        Vielhaben & Strodthoff 2024 (arXiv:2401.06654), who take OpenCV's.
    """
    check_inpaint()
    from skimage.restoration import inpaint_biharmonic

    masks = for_channels(removed).expand_as(images).flatten(0, 1).cpu().numpy()
    filled = unknown(images, mean).clone().flatten(0, 1)
    for row, (plane, mask) in enumerate(zip(images.flatten(0, 1).detach().double().cpu().numpy(), masks, strict=True)):
        if not mask.all():
            found = inpaint_biharmonic(plane, mask) if mask.any() else plane
            filled[row] = torch.from_numpy(np.clip(found, 0, 1)).to(filled)
    return filled.reshape(images.shape)


def check_inpaint() -> None:
    """Raise ValueError if scikit-image is not installed. A study with this fill is then refused before any work."""
    if importlib.util.find_spec("skimage") is None:
        raise ValueError(_MISSING)
