"""What takes the place of a removed pixel."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import chisquare

from efface import impute
from efface.base import draws
from efface.erase.blur import spot_weights
from efface.impute.draw import check_histogram, check_train_image
from efface.impute.inpaint import check_inpaint
from efface.metrics.probes.erasure import fills_averaged
from efface.plug.call import Call
from efface.plug.words import index
from small.batches import noise_split
from small.messages import words

IMAGES = torch.rand(4, 3, 6, 5, generator=torch.Generator().manual_seed(0))
GONE = torch.rand(4, 6, 5, generator=torch.Generator().manual_seed(1)) < 0.5


def seeds(images):
    """One an image, the same for the same image."""
    return (images.flatten(1)[:, 0] * 1e6).long()


@pytest.mark.parametrize("mean", [[0.1, 0.5, 0.9], torch.tensor([0.1, 0.5, 0.9])])
def test_channel_mean_is_one_colour(mean):
    filled = impute.channel_mean(IMAGES, GONE, mean=mean)
    assert filled.shape == IMAGES.shape
    for channel, value in enumerate((0.1, 0.5, 0.9)):
        assert (filled[:, channel] == value).all()


def test_constant_is_one_number_or_one_a_channel():
    assert (impute.constant(IMAGES, GONE) == 0).all()
    assert (impute.constant(IMAGES, GONE, value=0.25) == 0.25).all()
    assert torch.equal(
        impute.constant(IMAGES, GONE, value=[0.1, 0.5, 0.9]), impute.channel_mean(IMAGES, GONE, mean=[0.1, 0.5, 0.9])
    )


@pytest.mark.parametrize("values", [[0.5], [0.1, 0.2], [0.1] * 4])
def test_a_colour_of_other_channels_is_refused(values):
    said = f"{len(values)} 3 channels"
    with pytest.raises(ValueError, match=words(said)):
        impute.constant(IMAGES, GONE, value=values)
    with pytest.raises(ValueError, match=words(said)):
        impute.channel_mean(IMAGES, GONE, mean=values)


def test_train_image_is_one_training_image_for_all_that_is_removed():
    training = noise_split(7, 6, 5, seed=3, validation=torch.tensor([0, 4]))
    own = draws.seeds_of("train image", torch.arange(4))
    filled = impute.train_image(IMAGES, GONE, training=training, seeds=own)
    known = training.images.float() / 255
    rows = [int((known == image).flatten(1).all(1).nonzero()) for image in filled]
    assert not {0, 4} & {*rows}, "validation rows are not drawn"
    assert torch.equal(filled[2:3], impute.train_image(IMAGES[2:3], GONE[2:3], training=training, seeds=own[2:3]))
    given = torch.tensor([6, 6, 1, 2])
    assert torch.equal(impute.train_image(IMAGES, GONE, training=training, rows=given), known[given])


def test_train_image_draws_each_training_image_evenly_and_reaches_beyond_the_border():
    training = noise_split(5, 6, 5, seed=3)
    many = IMAGES[:1].expand(3000, -1, -1, -1)
    gone = GONE[:1].expand(3000, -1, -1)
    filled = impute.train_image(many, gone, training=training, seeds=draws.seeds_of("even", torch.arange(3000)))
    counts = [(filled == image).flatten(1).all(1).sum().item() for image in training.images.float() / 255]
    assert sum(counts) == 3000
    assert chisquare(counts).pvalue > 0.001
    wide = torch.nn.functional.pad(IMAGES, (2, 2, 2, 2))
    padded = impute.train_image(wide, wide[:, 0] > 0, training=training, rows=torch.arange(4))
    assert torch.equal(padded[:, :, 2:-2, 2:-2], training.images[:4].float() / 255)
    assert torch.equal(padded[:, :, 0, 2:-2], padded[:, :, 2, 2:-2])


def test_train_image_without_training_images_or_samples_is_refused():
    with pytest.raises(ValueError, match=words("train_image training split")):
        impute.train_image(IMAGES, GONE, training=None, seeds=seeds(IMAGES))
    with pytest.raises(ValueError, match=words("train_image samples 0")):
        check_train_image(samples=0)
    assert fills_averaged(Call(call="efface.impute.train_image", kwargs={"samples": 3})) == 3
    assert fills_averaged(Call(call="efface.impute.train_image")) == 5


def test_inpaint_continues_a_plane_and_keeps_within_the_range():
    y, x = torch.arange(9.0)[:, None] / 20, torch.arange(9.0)[None] / 20
    plane = (0.1 + y + x).expand(2, 3, 9, 9).contiguous()
    gone = torch.zeros(2, 9, 9, dtype=torch.bool)
    gone[:, 3:6, 2:6] = True
    torch.testing.assert_close(impute.inpaint(plane, gone), plane, atol=1e-5, rtol=0)
    filled = impute.inpaint(IMAGES, GONE)
    assert filled.min() >= 0
    assert filled.max() <= 1
    kept = ~GONE[:, None].expand_as(IMAGES)
    torch.testing.assert_close(filled[kept], IMAGES[kept])
    one = impute.inpaint(IMAGES[1:2], GONE[1:2])
    assert torch.equal(one, filled[1:2])


def test_inpaint_of_nothing_is_the_image_and_of_all_is_the_mean():
    none, every = torch.zeros_like(GONE), torch.ones_like(GONE)
    torch.testing.assert_close(impute.inpaint(IMAGES, none), IMAGES)
    assert (impute.inpaint(IMAGES, every) == 0.5).all()
    found = impute.inpaint(IMAGES, every, mean=[0.1, 0.2, 0.3])
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([0.1, 0.2, 0.3]))


def test_inpaint_solves_each_channel_with_its_own_mask():
    gone = torch.stack([GONE, ~GONE, GONE.roll(1, 1)], 1)
    found = impute.inpaint(IMAGES, gone)
    for channel in range(3):
        alone = impute.inpaint(IMAGES[:, channel : channel + 1], gone[:, channel])
        torch.testing.assert_close(found[:, channel : channel + 1], alone)


def test_inpaint_without_its_library_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=words("scikit-image pip install 'efface[inpaint]'")):
        check_inpaint()


def test_blur_is_the_gaussian_of_the_whole_image():
    images = IMAGES.double()
    expected = ndimage.gaussian_filter(images.numpy(), 2.0, mode="nearest", axes=(2, 3))
    torch.testing.assert_close(impute.blur(images, GONE, sigma=2.0), torch.from_numpy(expected))


def test_a_kernel_cuts_the_gaussian_off():
    flat, gone = torch.zeros(1, 1, 31, 31), torch.zeros(1, 31, 31, dtype=torch.bool)
    flat[..., 15, 15] = 1
    found = impute.blur(flat, gone, sigma=5.0, kernel=11)[0, 0]
    assert (found > 0).sum() == 11 * 11
    assert found.max() / found[found > 0].min() == pytest.approx(torch.e, rel=1e-4)  # 5 away along both axes: exp(-1)


def test_image_mean_is_each_images_own():
    filled = impute.image_mean(IMAGES, GONE)
    torch.testing.assert_close(filled[2, 1], IMAGES[2, 1].mean().expand(6, 5))
    assert torch.equal(filled, impute.image_mean(IMAGES, ~GONE))


def test_kept_mean_sees_only_what_is_kept():
    filled = impute.kept_mean(IMAGES, GONE)
    hidden = torch.where(GONE[:, None], 7.0, IMAGES)
    torch.testing.assert_close(filled, impute.kept_mean(hidden, GONE))
    for row in range(4):
        torch.testing.assert_close(filled[row, :, 0, 0], IMAGES[row][:, ~GONE[row]].mean(1))
    one = impute.kept_mean(IMAGES, GONE, over="image")
    torch.testing.assert_close(one[1, :, 3, 3], IMAGES[1][:, ~GONE[1]].mean().expand(3))


def test_kept_mean_of_features_is_each_channels_own():
    gone = torch.rand(4, 3, 6, 5, generator=torch.Generator().manual_seed(2)) < 0.5
    gone[3, 2] = True
    filled = impute.kept_mean(IMAGES, gone, mean=[0.1, 0.2, 0.3])
    torch.testing.assert_close(filled[1, 2, 0, 0], IMAGES[1, 2][~gone[1, 2]].mean())
    assert (filled[3, 2] == torch.tensor(0.3)).all()


def test_an_image_that_kept_nothing_gets_the_datas_mean_or_grey():
    everything = torch.ones_like(GONE)
    for over in ("channel", "image"):
        assert (impute.kept_mean(IMAGES, everything, over=over) == 0.5).all()
        filled = impute.kept_mean(IMAGES, everything, over=over, mean=[0.1, 0.2, 0.3])
        assert torch.equal(filled, impute.channel_mean(IMAGES, everything, mean=[0.1, 0.2, 0.3]))


@pytest.mark.parametrize(("size", "high", "wide"), [(2, 2, 2), (4, 4, 4), ((6, 2), 6, 2), ([1, 3], 1, 3), (50, 50, 50)])
def test_patch_mean_is_the_mean_of_each_patch(size, high, wide):
    filled = impute.patch_mean(IMAGES, GONE, size=size)
    for y in range(0, 6, high):
        for x in range(0, 5, wide):
            patch = IMAGES[:, :, y : y + high, x : x + wide]
            mean = patch.mean((2, 3), keepdim=True).expand_as(patch)
            torch.testing.assert_close(filled[:, :, y : y + high, x : x + wide], mean)


def test_gaussian_noise_lies_around_the_datas_mean():
    images, gone = torch.zeros(8, 3, 32, 32), torch.ones(8, 32, 32, dtype=torch.bool)
    filled = impute.gaussian_noise(images, gone, mean=[0.4, 0.5, 0.6], seeds=torch.arange(8), noise=0.1)
    torch.testing.assert_close(filled.mean((0, 2, 3)), torch.tensor([0.4, 0.5, 0.6]), atol=5e-3, rtol=0)
    torch.testing.assert_close(filled.std((0, 2, 3)), torch.full((3,), 0.1), atol=5e-3, rtol=0)
    given = torch.full_like(images, -0.25)
    assert (impute.gaussian_noise(images, gone, mean=[0.5, 0.5, 0.1], noise=given)[:, :2] == 0.25).all()
    assert (impute.gaussian_noise(images, gone, mean=[0.5, 0.5, 0.1], noise=given)[:, 2] == 0).all()


def test_image_pixels_takes_whole_pixels_of_the_same_image():
    images = torch.arange(2 * 3 * 30 * 30).reshape(2, 3, 30, 30) / 5400
    gone = torch.ones(2, 30, 30, dtype=torch.bool)
    filled = impute.image_pixels(images, gone, seeds=torch.tensor([3, 4]))
    place = ((filled - images[:, :, :1, :1]) * 5400).round()  # which pixel of the image it was, said by each channel
    assert (place == place[:, :1]).all()
    assert place.min() >= 0
    assert place.max() < 900
    assert 500 < len(place[0, 0].unique()) < 630  # 1 - 1/e of 900: drawn with replacement, evenly
    sources = torch.arange(900).flip(0).reshape(1, 30, 30).expand(2, -1, -1)
    assert torch.equal(impute.image_pixels(images, gone, sources=sources), images.flip(2, 3))


def colours_of_histogram(image, bins):
    """The colours that the cited imputer may draw, and how often it draws each: a histogram of all channels at once."""
    values = image.flatten(1).T.double().numpy()
    edges = [np.linspace(0, 1, bins + 1)] * len(image)
    counts = np.histogramdd(values, edges)[0]
    found = {}
    for place in np.argwhere(counts):
        inside = np.all(
            [
                (edges[c][k] <= values[:, c]) & (values[:, c] < edges[c][k + 1] + (k == bins - 1))
                for c, k in enumerate(place)
            ],
            axis=0,
        )
        found[tuple(values[inside].mean(0).round(4))] = counts[tuple(place)] / counts.sum()
    return found


def test_the_kernel_of_rise_is_a_spot_blurred_within_its_window():
    spot = np.zeros((11, 11))
    spot[5, 5] = 1
    expected = torch.from_numpy(ndimage.gaussian_filter(spot, 5))
    weights = spot_weights(sigma=5.0, kernel=11)
    torch.testing.assert_close(torch.outer(weights, weights), expected)
    assert (expected.max() / expected.min()).item() == pytest.approx(1.14, abs=0.005)
    cut = torch.exp(-0.5 * (torch.arange(-5, 6) / 5.0) ** 2)  # the kernel of `blur` with the same settings
    assert (torch.outer(cut, cut).max() / torch.outer(cut, cut).min()).item() == pytest.approx(2.72, abs=0.005)


def test_rise_blur_is_the_convolution_of_the_normalised_image():
    images = torch.rand(2, 3, 16, 13, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    gone = torch.ones(2, 16, 13, dtype=torch.bool)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
    spot = np.zeros((11, 11))
    spot[5, 5] = 1
    kernel = torch.from_numpy(ndimage.gaussian_filter(spot, 5)).expand(3, 1, 11, 11)

    def convolved(values):
        return torch.nn.functional.conv2d(values, kernel, padding=5, groups=3)

    shape = (3, 1, 1)
    normalised = convolved((images - mean.reshape(shape)) / std.reshape(shape)) * std.reshape(shape)
    found = impute.rise_blur(images, gone, mean=mean)
    torch.testing.assert_close(found, normalised + mean.reshape(shape))
    torch.testing.assert_close(impute.rise_blur(images, gone, border="black"), convolved(images))
    inside = impute.rise_blur(images, gone, border="repeat")
    torch.testing.assert_close(inside[..., 5:-5, 5:-5], found[..., 5:-5, 5:-5])
    flat = torch.full_like(images, 0.7)
    torch.testing.assert_close(impute.rise_blur(flat, gone, border="repeat"), flat)
    assert impute.rise_blur(flat, gone, border="black")[..., 0, 0].max() < 0.3  # darkened


@pytest.mark.parametrize("channels", [1, 3])
def test_histogram_draws_one_colour_as_often_as_the_histogram_of_the_image_says(channels):
    image = torch.randint(0, 256, (channels, 7, 6), generator=torch.Generator().manual_seed(3)) / 255
    image = image**2  # many dark pixels, so that bins differ
    count, bins = 4000, 2
    images, gone = image.expand(count, -1, -1, -1), torch.ones(count, 7, 6, dtype=torch.bool)
    filled = impute.histogram(images, gone, seeds=torch.arange(count), bins=bins)
    assert (filled == filled[:, :, :1, :1]).all()
    expected, drawn = colours_of_histogram(image, bins), filled[:, :, 0, 0].double().numpy().round(4)
    shares = dict.fromkeys(expected, 0.0)
    for each in drawn:
        (near,) = [colour for colour in expected if np.allclose(colour, each, atol=2e-4)]
        shares[near] += 1 / count
    for colour, share in expected.items():
        assert shares[colour] == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5)


def test_the_colour_of_a_given_pixel_is_the_mean_of_its_bin():
    images, gone = torch.tensor([0.1, 0.2, 0.3, 0.9]).reshape(1, 1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool)
    for pixel, colour in ((0, 0.15), (1, 0.15), (2, 0.3), (3, 0.9)):
        filled = impute.histogram(images, gone, bins=4, pixels=torch.tensor([pixel]))
        torch.testing.assert_close(filled, torch.full_like(images, colour))
    white = impute.histogram(torch.ones(1, 3, 2, 2), gone, pixels=torch.tensor([0]))
    assert (white == 1).all()


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        (lambda: impute.patch_mean(IMAGES, GONE, size=0), "size 0"),
        (lambda: impute.patch_mean(IMAGES, GONE, size=(2, 2, 2)), "size"),
        (lambda: impute.gaussian_noise(IMAGES, GONE, mean=[0.5] * 3, seeds=torch.arange(4), noise=-1.0), "noise -1"),
        (lambda: impute.gaussian_noise(IMAGES, GONE, mean=[0.5] * 3), "seeds"),
        (lambda: impute.image_pixels(IMAGES, GONE), "seeds"),
        (lambda: impute.image_pixels(IMAGES, GONE, sources=torch.full((4, 6, 5), 30)), "0 29"),
        (lambda: impute.histogram(IMAGES, GONE), "seeds"),
        (lambda: impute.rise_blur(IMAGES, GONE), "border mean black"),
        (
            lambda: Call(call="efface.impute.rise_blur", kwargs={"border": "white"}).check(("images", "removed")),
            "border white repeat",
        ),
        (lambda: impute.rise_blur(IMAGES, GONE, border="black", kernel=4), "kernel 4 odd"),
        (lambda: impute.histogram(IMAGES, GONE, pixels=torch.full((4,), 30)), "0 29"),
        (lambda: impute.histogram(IMAGES, GONE, seeds=torch.arange(4), bins=0), "bins 0"),
        (lambda: check_histogram(samples=0), "samples 0"),
    ],
)
def test_what_cannot_be_is_refused(fill, said):
    with pytest.raises(ValueError, match=words(said)):
        fill()


@pytest.mark.parametrize("word", [word for word in index("imputer") if word != "drop_tokens"])  # it makes no pixels
def test_each_image_is_on_its_own_and_stays_as_it_was(word):
    call = Call(
        call=index("imputer")[word], kwargs={"constant": {"value": 0.3}, "patch_mean": {"size": 4}}.get(word, {})
    )

    def fill(images, gone):
        offered = {"mean": [0.1, 0.5, 0.9], "seeds": seeds(images), "training": noise_split(7, 6, 5, seed=3)}
        return call(images, gone, **{name: value for name, value in offered.items() if call.wants(name)})

    before = IMAGES.clone()
    whole = fill(IMAGES, GONE)
    torch.testing.assert_close(whole, torch.cat([fill(IMAGES[i : i + 1], GONE[i : i + 1]) for i in range(4)]))
    assert torch.equal(IMAGES, before)
    assert 0 <= whole.min() <= whole.max() <= 1
