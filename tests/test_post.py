"""Maps on their way to the ranking, and the blur."""

import pytest
import torch
from scipy import ndimage

from efface import blur, post


def signed(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("function", [post.absolute, post.square, post.channel_sum, post.channel_max])
def test_each_map_is_on_its_own(function):
    maps = signed(4, 3, 5, 6)
    before = maps.clone()
    torch.testing.assert_close(function(maps), torch.cat([function(each[None]) for each in maps]))
    assert torch.equal(maps, before)


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 3, 5, 6)])
def test_sign_is_dropped(shape):
    maps = signed(*shape)
    assert torch.equal(post.absolute(maps), torch.maximum(maps, -maps))
    torch.testing.assert_close(post.square(maps).sqrt(), post.absolute(maps))


def test_channels_are_reduced():
    a, b = signed(2, 4, 5, 6)
    maps = torch.stack([a, b], 1)
    torch.testing.assert_close(post.channel_sum(maps), a + b)
    assert torch.equal(post.channel_max(maps), torch.maximum(a, b))
    assert post.channel_sum(a) is a
    assert post.channel_max(a) is a


@pytest.mark.parametrize("sigma", [0.4, 1.0, 5.0, 30.0])
@pytest.mark.parametrize("size", [(8, 8), (9, 17), (1, 4)])
def test_blur_equals_scipy(sigma, size):
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = ndimage.gaussian_filter(images.numpy(), sigma, mode="nearest", axes=(2, 3))
    torch.testing.assert_close(blur.gaussian_blur(images, sigma=sigma), torch.from_numpy(expected))


@pytest.mark.parametrize("kernel", [1, 3, 51])
def test_flat_image_stays_and_a_point_keeps_its_light(kernel):
    flat = torch.full((1, 3, 8, 8), 0.3)
    torch.testing.assert_close(blur.gaussian_blur(flat, sigma=5.0, kernel=kernel), flat)
    point = torch.zeros(1, 1, 101, 101)
    point[..., 50, 50] = 1.0
    spread = blur.gaussian_blur(point, sigma=5.0, kernel=kernel)
    assert spread.sum() == pytest.approx(1.0, abs=1e-5)
    assert (spread > 0).sum() == kernel**2
    torch.testing.assert_close(spread, spread.transpose(2, 3))
    torch.testing.assert_close(spread, spread.flip(2, 3))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sigma": 0.0}, "sigma is 0.0; expected pixels above 0"),
        ({"sigma": 1.0, "kernel": 4}, "kernel is 4; expected an odd number of pixels such as 5"),
        ({"sigma": 1.0, "kernel": -3}, "kernel is -3; expected an odd number"),
    ],
)
def test_impossible_blur_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        blur.gaussian_blur(torch.rand(1, 3, 8, 8), **settings)
