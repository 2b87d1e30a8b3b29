"""Imputers: functions (images, removed) -> images whose result replaces the removed pixels.

Only the removed pixels of the result are used. An imputer receives these keyword-only parameters if it names them:

mean: the data set's channel means.
seeds: one integer per image, so that a random fill does not depend on the batch.
training: the training split; None if the data have none.

`drop_tokens` is the exception: it makes no pixels. The probes that know its fact `drops_tokens` drop tokens instead.
"""

from efface.impute.draw import gaussian_noise, histogram, image_pixels, train_image
from efface.impute.drop import drop_tokens
from efface.impute.fill import blur, channel_mean, constant, image_mean, kept_mean, patch_mean, rise_blur
from efface.impute.inpaint import inpaint
from efface.impute.linear import noisy_linear

__all__ = [
    "blur",
    "channel_mean",
    "constant",
    "drop_tokens",
    "gaussian_noise",
    "histogram",
    "image_mean",
    "image_pixels",
    "inpaint",
    "kept_mean",
    "noisy_linear",
    "patch_mean",
    "rise_blur",
    "train_image",
]
