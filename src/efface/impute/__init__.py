"""What takes the place of a removed pixel: (images, removed) -> images; only the removed places of it are used.

Keyword-only parameters with these names are handed over: `mean`, the data set's channel means, and `seeds`, one an
image, so that a random fill is the same in any batch.
"""

from efface.impute.draw import gaussian_noise, histogram
from efface.impute.fill import blur, channel_mean, constant, image_mean, kept_mean, patch_mean
from efface.impute.linear import noisy_linear

__all__ = [
    "blur",
    "channel_mean",
    "constant",
    "gaussian_noise",
    "histogram",
    "image_mean",
    "kept_mean",
    "noisy_linear",
    "patch_mean",
]
