"""Augmentations: against torchvision's on single images, by the moments of their draws, and as a part of a training."""

import math
import re

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import ColorJitter, InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as F

from efface.base import draws
from efface.training import augment
from efface.training.augment import colour_jitter, random_resized_crop, rotation
from small.messages import words

ALL = {"brightness": 0.25, "contrast": 0.4, "saturation": 0.8}


def pictures(count=12, channels=3, h=14, w=14):
    return torch.rand(count, channels, h, w, generator=torch.Generator().manual_seed(count))


def seeds(count=12, text="augment"):
    return draws.seeds_of(text, torch.arange(count))


# Against torchvision


def test_colours_are_torchvisions_with_the_same_factors_in_the_same_order(monkeypatch):
    monkeypatch.setattr(augment, "GREY", (0.2989, 0.587, 0.114))  # theirs, of which a grey loses a ten thousandth
    images = pictures()
    factors, order = augment.drawn_factors(seeds(), tuple(ALL.values()))
    adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)
    found = colour_jitter(images, seeds(), **ALL)
    for image, own, turns, ours in zip(images, factors.tolist(), order.tolist(), found, strict=True):
        for turn in turns:
            image = adjust[turn](image, own[turn])
        torch.testing.assert_close(ours, image, rtol=0, atol=1e-6)
    assert len({tuple(turns) for turns in augment.drawn_factors(seeds(200), (0.0, 0.0, 0.0))[1].tolist()}) == 6


@pytest.mark.parametrize("value", [0.3, 1.5])
def test_one_channel_is_its_own_grey(value):
    images = pictures(channels=1)
    factors, _ = augment.drawn_factors(seeds(), (0.0, value, 0.0))
    found = colour_jitter(images, seeds(), contrast=value)
    for image, factor, ours in zip(images, factors[:, 1].tolist(), found, strict=True):
        torch.testing.assert_close(ours, F.adjust_contrast(image, factor), rtol=0, atol=1e-6)


@pytest.mark.parametrize("degrees", [2.0, 70.0, 180.0])
@pytest.mark.parametrize("shape", [(14, 14), (9, 16)])
@pytest.mark.parametrize("fill", [0.0, 0.3, None])
def test_a_rotation_is_torchvisions_by_the_same_angle(degrees, shape, fill):
    """Without a fill, of the image with its edge drawn out; with one, of what the image has above it, on 0."""
    images, border = pictures(h=shape[0], w=shape[1]), 16
    angles = torch.rad2deg(augment.drawn_angles(seeds(), degrees))
    found = rotation(images, seeds(), degrees=degrees, fill=fill)
    for image, angle, ours in zip(images, angles.tolist(), found, strict=True):
        larger = F.pad(image, border, padding_mode="edge") if fill is None else image - fill
        turned = F.rotate(larger, angle, InterpolationMode.BILINEAR)
        expected = F.center_crop(turned, shape) if fill is None else turned + fill
        torch.testing.assert_close(ours, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [(14, 14), (20, 9)])
@pytest.mark.parametrize("settings", [{}, {"scale": (0.4, 0.9), "ratio": (0.5, 0.8)}])
def test_a_window_is_torchvisions_resized_crop_of_the_same_place(shape, settings):
    images = pictures(40, h=shape[0], w=shape[1])
    given = {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)} | settings
    windows = augment.drawn_windows(seeds(40), *shape, **given)
    found = random_resized_crop(images, seeds(40), **settings)
    for image, window, ours in zip(images, windows.int().tolist(), found, strict=True):
        for antialias in (True, False):  # which an enlargement has no use for
            expected = F.resized_crop(image, *window, list(shape), antialias=antialias)
            torch.testing.assert_close(ours, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [(32, 32), (24, 40)])
def test_windows_are_drawn_as_torchvision_draws_them(shape):
    count, scale, ratio = 4000, (0.08, 1.0), (3 / 4, 4 / 3)
    ours = augment.drawn_windows(seeds(count), *shape, scale, ratio).numpy()
    with draws.seeded(1):
        theirs = np.array([RandomResizedCrop.get_params(torch.empty(3, *shape), scale, ratio) for _ in range(count)])
    for name, found, expected in zip(("top", "left", "height", "width"), ours.T, theirs.T, strict=True):
        assert stats.ks_2samp(found, expected).pvalue > 1e-3, name


@pytest.mark.parametrize(("shape", "ratio"), [((4, 40), (0.5, 2.0)), ((40, 4), (0.5, 2.0)), ((8, 8), (3.0, 4.0))])
def test_where_no_window_fits_it_is_the_largest_in_the_middle(shape, ratio):
    (expected,) = {RandomResizedCrop.get_params(torch.empty(3, *shape), (1.0, 1.0), ratio) for _ in range(20)}
    assert {tuple(each) for each in augment.drawn_windows(seeds(), *shape, (1.0, 1.0), ratio).int().tolist()} == {
        expected
    }


# Draws


def test_factors_and_angles_are_uniform():
    """Within 4.5 standard errors of the mean of a uniform draw, and within its limits."""
    count = 20_000
    factors, order = augment.drawn_factors(seeds(count), (0.25, 1.5, 0.0))
    angles = augment.drawn_angles(seeds(count), 2.0) * 180 / math.pi
    for values, low, high in ((factors[:, 0], 0.75, 1.25), (factors[:, 1], 0.0, 2.5), (angles, -2.0, 2.0)):
        assert low <= float(values.min()) < low + (high - low) / 1000
        assert high - (high - low) / 1000 < float(values.max()) <= high + 1e-6
        assert abs(float(values.double().mean()) - (low + high) / 2) < 4.5 * (high - low) / math.sqrt(12 * count)
    assert (factors[:, 2] == 1).all()
    assert tuple(ColorJitter(brightness=0.25, contrast=1.5).brightness) == (0.75, 1.25)
    assert tuple(ColorJitter(brightness=0.25, contrast=1.5).contrast) == (0.0, 2.5)
    shares = torch.stack([(order == change).double().mean(0) for change in range(3)])
    assert (shares - 1 / 3).abs().max() < 4.5 * math.sqrt(2 / 9 / count)
    assert abs(float(np.corrcoef(factors[:, 0], order[:, 0])[0, 1])) < 4.5 / math.sqrt(count)


FUNCTIONS = {
    "colour_jitter": (colour_jitter, ALL),
    "rotation": (rotation, {"degrees": 30.0}),
    "rotation_filled": (rotation, {"degrees": 30.0, "fill": 0.5}),
    "random_resized_crop": (random_resized_crop, {}),
}


@pytest.mark.parametrize(("function", "settings"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_an_image_is_changed_alike_in_any_batch_and_stays_in_its_range(function, settings):
    images = pictures(30).round() if function is not colour_jitter else pictures(30)
    before, every = images.clone(), seeds(30)
    found = function(images, every, **settings)
    assert torch.equal(images, before)
    parts = [function(images[part], every[part], **settings) for part in torch.arange(30).split(7)]
    assert torch.equal(torch.cat(parts), found)
    assert (found != images).flatten(1).any(1).sum() >= 28
    assert not torch.equal(function(images, seeds(30, "other"), **settings), found)
    assert found.min() >= 0
    assert found.max() <= 1
    for grey in (0.0, 0.3, 1.0):
        flat = torch.full((30, 3, 14, 14), grey)
        if function is not colour_jitter and settings.get("fill") is None:
            torch.testing.assert_close(function(flat, every, **settings), flat, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(12, 12), (9, 13), (1, 1)])
def test_settings_that_change_nothing_change_no_bit(shape):
    images = pictures(h=shape[0], w=shape[1])
    assert torch.equal(colour_jitter(images, seeds()), images)
    for fill in (None, 0.0, 0.7):
        assert torch.equal(rotation(images, seeds(), degrees=0.0, fill=fill), images)
    square = shape[0] == shape[1]
    ratio = (1.0, 1.0) if square else (shape[1] / shape[0],) * 2
    assert torch.equal(random_resized_crop(images, seeds(), scale=(1.0, 1.0), ratio=ratio), images)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("function", "settings"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_the_same_on_the_gpu(function, settings):
    images, every = pictures(30), seeds(30)
    there = function(images.cuda(), every.cuda(), **settings)
    torch.testing.assert_close(there.cpu(), function(images, every, **settings), rtol=0, atol=1e-4)


# Refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: colour_jitter(x, seeds(), contrast=-0.1), "colour_jitter contrast -0.1"),
        (lambda x: colour_jitter(x, seeds(), hue=0.1), "hue"),
        (lambda x: colour_jitter(x[:, :1], seeds(), saturation=0.1), "saturation 0.1"),
        (lambda x: colour_jitter(x[:, :2], seeds(), brightness=0.1), "2 channels"),
        (lambda x: rotation(x, seeds(), degrees=-1.0), "degrees -1.0 180"),
        (lambda x: rotation(x, seeds(), degrees=1.0, fill=2.0), "fill 2.0"),
        (lambda x: random_resized_crop(x, seeds(), scale=(0.0, 1.0)), "scale [0.0, 1.0] 0 1"),
        (lambda x: random_resized_crop(x, seeds(), scale=(0.5, 1.1)), "scale"),
        (lambda x: random_resized_crop(x, seeds(), ratio=(2.0, 1.0)), "ratio last"),
        (lambda x: random_resized_crop(x, seeds(), ratio=(2.0,)), "ratio"),
    ],
)
def test_settings_out_of_range_are_one_sentence(call, message):
    with pytest.raises((ValueError, TypeError), match=words(message)) as caught:
        call(pictures())
    assert re.search(r"\n", str(caught.value)) is None
