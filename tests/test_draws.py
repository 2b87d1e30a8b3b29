"""Random numbers that belong to an image."""

import math

import pytest
import torch
from scipy import stats

from efface.base import draws


def seeds(n, text="test"):
    return draws.seeds_of(text, torch.arange(n))


def split_mix(seed, position):
    """Steele, Lea & Flood 2014 in Python's whole numbers."""
    z = (seed + position * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_keys_are_split_mix_64():
    given = torch.tensor([0, 5, -7, 2**62, -(2**63)])
    before = given.clone()
    found = draws.keys(given, 40_000)  # more than one piece
    assert torch.equal(given, before)
    for row, seed in enumerate(given.tolist()):
        for position in (0, 1, 32_767, 32_768, 39_999):
            assert found[row, position].item() % 2**64 == split_mix(seed % 2**64, position + 1)


def test_uniform_is_the_top_24_bits():
    found, bits = draws.uniform(seeds(3), (5, 7)), draws.keys(seeds(3), 35)
    expected = [(key % 2**64 >> 40) * 2.0**-24 for key in bits.flatten().tolist()]
    assert found.flatten().tolist() == expected
    assert found.dtype == torch.float32


def test_normal_is_box_muller():
    keys = [key % 2**64 for key in draws.keys(seeds(1), 50).flatten().tolist()]
    radius = [math.sqrt(-2 * math.log(((key >> 40) + 0.5) * 2.0**-24)) for key in keys]
    angle = [2 * math.pi * (key % 2**24) * 2.0**-24 for key in keys]
    expected = [r * math.cos(a) for r, a in zip(radius, angle, strict=True)]
    expected += [r * math.sin(a) for r, a in zip(radius, angle, strict=True)]
    torch.testing.assert_close(draws.normal(seeds(1), (99,))[0], torch.tensor(expected[:99]), atol=2e-6, rtol=1e-5)


def test_distributions():
    uniform = draws.uniform(seeds(40), (50, 50)).double().flatten().numpy()
    normal = draws.normal(seeds(40), (50, 50)).double().flatten().numpy()
    assert stats.kstest(uniform, "uniform").pvalue > 0.01
    assert stats.kstest(normal, "norm").pvalue > 0.01
    assert uniform.min() >= 0
    assert uniform.max() < 1
    n = len(normal)
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((normal**power).mean() - moment) < 4 * math.sqrt(spread / n)


@pytest.mark.parametrize("draw", [draws.uniform, draws.normal])
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 31, 33), (3, 101, 173), (3, 224, 224)])
def test_same_bits_in_any_batch(draw, shape):
    n = 5 if math.prod(shape) > 10_000 else 37
    whole = draw(seeds(n), shape)
    assert whole.shape == (n, *shape)
    for size in (1, 2, 16):
        assert torch.equal(whole, torch.cat([draw(part, shape) for part in seeds(n).split(size)]))
    assert torch.equal(whole.flip(0), draw(seeds(n).flip(0), shape))


@pytest.mark.parametrize("draw", [draws.uniform, draws.normal])
def test_shape_only_reshapes(draw):
    flat = draw(seeds(4), (60,))
    assert torch.equal(flat.reshape(4, 3, 4, 5), draw(seeds(4), (3, 4, 5)))
    strided = torch.stack([seeds(4), seeds(4)], 1).reshape(4, 2)[:, 0]
    assert torch.equal(flat, draw(strided, (60,)))
    assert draw(seeds(0), (60,)).shape == (0, 60)


def test_images_folds_and_positions_are_uncorrelated():
    first = draws.normal(seeds(1), (100_000,))[0]
    others = [
        draws.normal(draws.fold(seeds(1), 0), (100_000,))[0],
        draws.normal(draws.fold(seeds(1), 1), (100_000,))[0],
        draws.normal(seeds(2), (100_000,))[1],
        draws.normal(seeds(1, "another"), (100_000,))[0],
        first.roll(1),
        first.roll(50_000),  # the other number of each pair
    ]
    for other in others:
        assert abs((first * other).mean()) < 4 / math.sqrt(100_000)
        assert abs((first**2 * other**2).mean() - 1) < 4 * math.sqrt(8 / 100_000)


def test_folds_are_all_different():
    folded = torch.cat([draws.fold(seeds(500), number) for number in (-1, 0, 1, 2, 2**40)] + [seeds(500)])
    assert len(folded.unique()) == 3000
    before = seeds(3)
    assert torch.equal(draws.fold(before, 2), draws.fold(seeds(3), 2))
    assert torch.equal(before, seeds(3))


def test_seeds_belong_to_row_and_text():
    rows = torch.tensor([4, 0, 4])
    found = draws.seeds_of("a", rows)
    assert found[0] == found[2] == draws.seeds_of("a", torch.arange(9))[4]
    assert len({*seeds(1000, "a").tolist(), *seeds(1000, "b").tolist()}) == 2000
    assert draws.seed_of("a") == draws.seed_of("a") != draws.seed_of("b")
    assert all(0 <= draws.seed_of(str(each)) < 2**63 for each in range(100))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_numbers_on_the_gpu():
    there = seeds(5).cuda()
    assert torch.equal(draws.uniform(seeds(5), (3, 99, 99)), draws.uniform(there, (3, 99, 99)).cpu())
    assert torch.equal(draws.keys(seeds(5), 999), draws.keys(there, 999).cpu())
    torch.testing.assert_close(
        draws.normal(seeds(5), (3, 99, 99)), draws.normal(there, (3, 99, 99)).cpu(), atol=1e-5, rtol=1e-4
    )
