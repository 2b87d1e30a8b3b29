"""Maps on their way to the ranking, and the blur."""

from functools import partial

import pytest
import torch
from scipy import ndimage

from efface.erase import blur, post
from small.messages import words


def signed(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


EVERY = {
    "absolute": post.absolute,
    "square": post.square,
    "positive": post.positive,
    "channel_sum": post.channel_sum,
    "channel_max": post.channel_max,
    "channel_std": post.channel_std,
    "gaussian_blur": partial(post.gaussian_blur, sigma=0.8),
    "max_filter": partial(post.max_filter, size=3),
    "normalise": post.normalise,
}


@pytest.mark.parametrize("function", EVERY.values(), ids=EVERY)
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


def test_positive_keeps_evidence_for_the_class():
    maps = signed(2, 3, 5, 6)
    torch.testing.assert_close(post.positive(maps) - post.positive(-maps), maps)
    assert post.positive(maps).min() == 0


def test_std_over_channels_is_unbiased():
    maps = signed(2, 3, 5, 6)
    torch.testing.assert_close(post.channel_std(maps), torch.from_numpy(maps.numpy().std(1, ddof=1)))


@pytest.mark.parametrize(("shape", "found"), [((4, 5, 6), "no"), ((4, 1, 5, 6), "1")])
def test_std_without_channels_is_refused(shape, found):
    with pytest.raises(ValueError, match=words(f"channel_std {found} channels 2")):
        post.channel_std(signed(*shape))


@pytest.mark.parametrize("size", [1, 3, 7, 31])
@pytest.mark.parametrize("shape", [(2, 3, 9, 6), (2, 9, 6)])
def test_max_filter_equals_scipy(size, shape):
    maps = signed(*shape) - 2.0  # all but all negative: a border of zeros would show
    expected = ndimage.maximum_filter(maps.numpy(), size, mode="constant", cval=-100.0, axes=(-2, -1))
    assert torch.equal(post.max_filter(maps, size=size), torch.from_numpy(expected))


@pytest.mark.parametrize("size", [0, 2, -3])
def test_filter_without_a_middle_is_refused(size):
    with pytest.raises(ValueError, match=words(f"size {size} odd")):
        post.max_filter(signed(1, 4, 4), size=size)


@pytest.mark.parametrize("shape", [(2, 3, 9, 6), (2, 9, 6)])
def test_blurred_map_is_the_blurred_image(shape):
    maps = signed(*shape)
    expected = ndimage.gaussian_filter(maps.numpy(), 1.5, mode="nearest", axes=(-2, -1))
    torch.testing.assert_close(post.gaussian_blur(maps, sigma=1.5), torch.from_numpy(expected))


@pytest.mark.parametrize("shape", [(2, 3, 9, 6), (2, 9, 6)])
def test_normalised_map_keeps_its_order_and_zero(shape):
    maps = signed(*shape)
    maps[0, ..., 0] = 0.0
    found = post.normalise(1e-30 * maps.float())
    assert found.abs().flatten(1).amax(1).tolist() == [1.0, 1.0]
    assert (found[0, ..., 0] == 0).all()
    assert torch.equal(found.sign(), maps.float().sign())
    orders = [each.flatten(1).argsort(dim=1, stable=True) for each in (found, maps.float())]
    assert torch.equal(*orders)
    assert torch.equal(post.normalise(torch.zeros(shape)), torch.zeros(shape))


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
        ({"sigma": 0.0}, "sigma 0.0"),
        ({"sigma": 1.0, "kernel": 4}, "kernel 4 5"),
        ({"sigma": 1.0, "kernel": -3}, "kernel -3"),
    ],
)
def test_impossible_blur_is_refused(settings, said):
    with pytest.raises(ValueError, match=words(said)):
        blur.gaussian_blur(torch.rand(1, 3, 8, 8), **settings)
