"""Golden outputs of what changes images and maps: fills, reductions, units, augmentations."""

import functools

import torch
from torchvision.models import VisionTransformer

from efface.erase.masking import to_stored
from efface.erase.post import (
    absolute,
    channel_max,
    channel_std,
    channel_sum,
    gaussian_blur,
    max_filter,
    normalise,
    positive,
    square,
)
from efface.erase.units import patch, superpixel, token
from efface.impute import (
    blur,
    channel_mean,
    constant,
    gaussian_noise,
    histogram,
    image_mean,
    image_pixels,
    inpaint,
    kept_mean,
    noisy_linear,
    patch_mean,
    rise_blur,
    train_image,
)
from efface.metrics.probes import Erasure, Perturb
from efface.plug.call import Call
from efface.training.augment import colour_jitter, random_resized_crop, rotation
from numerics import inputs
from numerics.table import golden

MEAN = (0.3, 0.5, 0.8)


def _mask(wide: int | None = None):
    """Holes of several sizes, one at a corner; the second image keeps nothing, the third loses nothing."""
    gone = inputs.maps(4, seed=11, size=9, channels=wide) > 0.2
    gone[0, ..., :3, :4] = True
    gone[1], gone[2] = True, False
    return gone


FILLS = {
    blur: ({}, {"sigma": 1.5}, {"sigma": 2.0, "kernel": 5}),
    channel_mean: ({"mean": torch.tensor(MEAN)},),
    constant: ({}, {"value": 0.4}, {"value": MEAN}),
    gaussian_noise: ({"mean": MEAN, "seeds": True}, {"mean": MEAN, "seeds": True, "noise": 0.1}),
    histogram: ({"seeds": True}, {"seeds": True, "bins": 2}),
    image_mean: ({},),
    image_pixels: ({"seeds": True},),
    inpaint: ({}, {"mean": MEAN}),
    kept_mean: ({}, {"mean": MEAN}, {"mean": MEAN, "over": "image"}),
    noisy_linear: ({"seeds": True}, {"seeds": True, "noise": 0.05}, {"seeds": True, "noise": 0.0}),
    patch_mean: ({}, {"size": 2}, {"size": [3, 4]}),
    train_image: ({"seeds": True, "training": inputs.data(9)["train"]},),
    rise_blur: ({"mean": MEAN}, {"border": "black"}, {"border": "repeat", "sigma": 1.0, "kernel": 5}),
}


def _filled(fill, settings):
    images, found = inputs.images(4, size=9), {}
    for name, gone in (("pixel", _mask()), ("feature", _mask(3))):
        for number, given in enumerate(settings):
            more = given | ({"seeds": inputs.seeds(4)} if given.get("seeds") else {})
            found[f"{name}_{number}"] = fill(images, gone, **more)
    more = settings[0] | ({"seeds": inputs.seeds(4)[:1]} if settings[0].get("seeds") else {})
    found["one_image"] = fill(images[:1], _mask()[:1], **more)
    return found


for _fill, _settings in FILLS.items():
    golden(f"imputer.{_fill.__name__}")(functools.partial(_filled, _fill, _settings))


@golden("imputer.drop_tokens")
def _drop_tokens():
    """Scores, for it makes no pixels: images of 8 x 8 in patches of 4 x 4 and of 2 x 2, in each order."""
    found = {}
    for name, size in {"square": 4, "small": 2}.items():
        network = inputs.randomised(VisionTransformer(8, size, 2, 2, 8, 16, num_classes=inputs.CLASSES), 4)
        unit = Call(call="efface.erase.units.token", kwargs={"token_size": [size, size]})
        here = inputs.case({"test": inputs.maps(6)}, given_network=network)
        for order in ("most_first", "least_first", "random"):
            for fraction in (0.25, 0.5, 1.0):
                erasure = Erasure(order, fraction, Call(call="efface.impute.drop_tokens"), (), unit)
                found[f"{name}_{order}_{fraction}"] = torch.from_numpy(Perturb(erasure)(here).values["logit"])
    return found


POSTS = {
    absolute: ({},),
    channel_max: ({},),
    channel_std: ({},),
    channel_sum: ({},),
    gaussian_blur: ({"sigma": 1.0}, {"sigma": 2.5, "kernel": 3}),
    max_filter: ({"size": 1}, {"size": 3}, {"size": 5}),
    normalise: ({},),
    positive: ({},),
    square: ({},),
}


def _reduced(post, settings):
    single, wide, found = inputs.maps(4, seed=12), inputs.maps(4, seed=13, channels=3), {}
    wide[3], single[3] = 0.0, 0.0
    for number, given in enumerate(settings):
        found[f"channels_{number}"] = post(wide, **given)
        if post is not channel_std:
            found[f"single_{number}"] = post(single, **given)
    found["one_map"] = post(wide[1:2], **settings[0])
    return found


for _post, _settings in POSTS.items():
    golden(f"post.{_post.__name__}")(functools.partial(_reduced, _post, _settings))


def _pictures():
    """Colours of one lightness and greys of one hue, so that CIELAB and RGB disagree on what is near."""
    images = inputs.images(3, seed=14, size=12)
    images[0, :, :6], images[0, 0, :, 4:], images[0, 2, 5:] = 0.45, 0.62, 0.3
    images[1] = 0.5
    return images


@golden("unit.patch")
def _patch():
    images = _pictures()
    return {f"{size}": patch(images, size=size) for size in (1, 5, 20)} | {"two": patch(images, size=[5, 3])}


@golden("unit.token")
def _token():
    images = _pictures()
    return {"square": token(images, token_size=[4, 4]), "cut": token(images, token_size=[5, 8])}


@golden("unit.superpixel")
def _superpixel():
    images = _pictures()
    return {
        "default": superpixel(images),
        "colour": superpixel(images, segments=8, compactness=3.0),
        "even": superpixel(images, segments=8, compactness=30.0),
        "smoothed": superpixel(images, segments=8, compactness=3.0, sigma=1.0),
        "grey": superpixel(images[:, :1], segments=8, compactness=0.05),
        "groups": superpixel(images, segments=8, compactness=3.0).flatten(1).amax(1),
    }


@golden("augmentation.colour_jitter")
def _colour_jitter():
    images, seeds = inputs.images(6), inputs.seeds(6)
    return {
        "brightness": colour_jitter(images, seeds, brightness=0.5),
        "contrast": colour_jitter(images, seeds, contrast=0.5),
        "saturation": colour_jitter(images, seeds, saturation=0.9),
        "all": colour_jitter(images, seeds, brightness=1.4, contrast=0.8, saturation=0.9),
        "grey": colour_jitter(images[:, :1], seeds, brightness=0.3, contrast=0.5),
    }


@golden("augmentation.rotation")
def _rotation():
    images, seeds = inputs.images(4, size=9), inputs.seeds(4)
    tall = images[..., :6]
    return {
        "turned": rotation(images, seeds, degrees=40.0),
        "filled": rotation(images, seeds, degrees=170.0, fill=0.2),
        "not_square": rotation(tall, seeds, degrees=90.0),
    }


@golden("augmentation.random_resized_crop")
def _random_resized_crop():
    images, seeds = inputs.images(6, size=9), inputs.seeds(6)
    return {
        "default": random_resized_crop(images, seeds),
        "stored": to_stored(random_resized_crop(images, seeds)),
        "large": random_resized_crop(images, seeds, scale=(0.9, 1.0), ratio=(1.0, 1.0)),
        "none_fits": random_resized_crop(images, seeds, scale=(1.0, 1.0), ratio=(2.0, 3.0)),
        "not_square": random_resized_crop(images[..., :5], seeds),
    }
