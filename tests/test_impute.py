"""What takes the place of a removed pixel."""

import pytest
import torch
from scipy import ndimage

from efface import impute

IMAGES = torch.rand(4, 3, 6, 5, generator=torch.Generator().manual_seed(0))
GONE = torch.rand(4, 6, 5, generator=torch.Generator().manual_seed(1)) < 0.5


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
    said = f"the fill has {len(values)} values, the images 3 channels; give one value a channel"
    with pytest.raises(ValueError, match=said):
        impute.constant(IMAGES, GONE, value=values)
    with pytest.raises(ValueError, match=said):
        impute.channel_mean(IMAGES, GONE, mean=values)


def test_blur_is_the_gaussian_of_the_whole_image():
    images = IMAGES.double()
    expected = ndimage.gaussian_filter(images.numpy(), 2.0, mode="nearest", axes=(2, 3))
    torch.testing.assert_close(impute.blur(images, GONE, sigma=2.0), torch.from_numpy(expected))


@pytest.mark.parametrize(
    "fill",
    [
        lambda images, gone: impute.channel_mean(images, gone, mean=[0.1, 0.5, 0.9]),
        lambda images, gone: impute.constant(images, gone, value=0.3),
        impute.blur,
    ],
)
def test_each_image_is_on_its_own_and_stays_as_it_was(fill):
    before = IMAGES.clone()
    whole = fill(IMAGES, GONE)
    torch.testing.assert_close(whole, torch.cat([fill(IMAGES[i : i + 1], GONE[i : i + 1]) for i in range(4)]))
    assert torch.equal(IMAGES, before)
    assert 0 <= whole.min() <= whole.max() <= 1
