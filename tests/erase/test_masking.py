"""From maps to ranks to masks to erased images."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from efface import impute
from efface.base import draws
from efface.erase import masking, ranking
from small.messages import words


def seeds(n):
    return draws.seeds_of("test", torch.arange(n))


def coarse(*shape):
    """Maps of few values, so that most are tied."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(0)).float()


def distinct(*shape):
    units = math.prod(shape[1:])
    order = [torch.randperm(units, generator=torch.Generator().manual_seed(i)) for i in range(shape[0])]
    return (torch.stack(order) - units / 2).float().reshape(shape)


def test_what_is_not_a_number_comes_first_and_ties():
    maps = torch.arange(16.0).reshape(1, 4, 4).repeat(400, 1, 1)
    maps[:, 1] = torch.nan
    ranks = ranking.rank(maps, seeds(400)).flatten(1).long()
    assert torch.equal(ranks.sort(1).values, torch.arange(16).expand(400, 16))
    assert (ranks[:, 4:8] < 4).all()
    assert ranks[:, 15].unique().tolist() == [4]
    # each of the four comes first as often: 100 of 400, standard deviation 8.7
    assert all(60 < int(count) < 140 for count in (ranks[:, 4:8] == 0).sum(0))
    one = torch.full((2, 4, 4), torch.nan)
    assert torch.equal(ranking.rank(one, seeds(2)), ranking.rank(torch.zeros(2, 4, 4), seeds(2)))


@pytest.mark.parametrize("shape", [(4, 1, 1), (4, 7, 9), (3, 3, 5, 7), (2, 190, 190)])
@pytest.mark.parametrize("make", [coarse, distinct])
def test_ranks_are_a_permutation_that_sorts(shape, make):
    maps = make(*shape)
    before = maps.clone()
    ranks = ranking.rank(maps, seeds(len(maps)))
    assert torch.equal(maps, before)
    assert ranks.shape == maps.shape
    assert ranks.dtype == (torch.int32 if math.prod(shape[1:]) > 32767 else torch.int16)
    units = torch.arange(math.prod(shape[1:]))
    for row, places in zip(maps.flatten(1), ranks.flatten(1).long(), strict=True):
        assert torch.equal(places.sort().values, units)
        assert (row[places.argsort()].diff() <= 0).all()


@pytest.mark.parametrize("shape", [(4, 7, 9), (3, 3, 5, 7)])
def test_ranks_equal_a_slow_reference(shape):
    maps = distinct(*shape)
    found = ranking.rank(maps, seeds(len(maps)))
    for row, places in zip(maps.flatten(1).numpy(), found.flatten(1).numpy(), strict=True):
        assert places.tolist() == [int((row > value).sum()) for value in row]


def test_ranks_do_not_depend_on_the_batch():
    maps = torch.cat([coarse(5, 8, 8), distinct(5, 8, 8)])[torch.randperm(10)]
    whole = ranking.rank(maps, seeds(10))
    for size in (1, 3):
        parts = zip(maps.split(size), seeds(10).split(size), strict=True)
        assert torch.equal(whole, torch.cat([ranking.rank(*part) for part in parts]))


def test_ties_are_shuffled_by_the_seed_and_spread_evenly():
    maps = torch.zeros(2000, 6, 6)
    ranks = ranking.rank(maps, seeds(2000))
    assert torch.equal(ranks, ranking.rank(maps, seeds(2000)))
    assert not torch.equal(ranks, ranking.rank(maps, draws.fold(seeds(2000), 1)))
    times = ranking.removed(ranks, 0.25, "most_first").sum(0).flatten().numpy()
    assert times.sum() == 2000 * 9
    # Of a draw without replacement: chi-square shrunk by the share that stays.
    chi = ((times - 500.0) ** 2 / 500.0).sum() / (1 - 0.25) * (35 / 36)
    assert 0.005 < stats.chi2.sf(chi, 35) < 0.995
    first = np.bincount(ranks.flatten(1).argmin(1).numpy(), minlength=36)
    assert stats.chisquare(first).pvalue > 0.005


def test_ties_within_a_value_only():
    maps = torch.zeros(500, 4, 4)
    maps[:, 0] = 1.0
    ranks = ranking.rank(maps, seeds(500))
    assert (ranks[:, 0] < 4).all()
    assert (ranks[:, 1:] >= 4).all()
    assert stats.chisquare(np.bincount(ranks[:, 0].flatten(1).argmin(1).numpy(), minlength=4)).pvalue > 0.005


def test_minus_zero_ties_with_zero():
    maps = torch.zeros(400, 1, 2)
    maps[:, 0, 1] = -0.0
    assert 100 < ranking.rank(maps, seeds(400))[:, 0, 0].sum() < 300


@pytest.mark.parametrize("units", [1, 3, 49, 64, 1023, 1024, 50176])
def test_count_is_the_exact_floor(units):
    assert ranking.count(0.0, units) == 0
    assert ranking.count(1.0, units) == units
    for percent in range(101):
        assert ranking.count(percent / 100, units) == percent * units // 100
        assert ranking.count(1 - percent / 100, units) == (100 - percent) * units // 100


@pytest.mark.parametrize("fraction", [-0.1, 1.0001, math.nan, 10.0])
def test_impossible_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match=words(f"fraction {fraction}")):
        ranking.count(fraction, 10)


@pytest.mark.parametrize("shape", [(3, 7, 9), (3, 3, 5, 7), (3, 8, 8)])
@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999, 1.0])
def test_masks_hold_the_extreme_units(shape, fraction):
    maps = distinct(*shape)
    ranks = ranking.rank(maps, seeds(3))
    gone = math.floor(fraction * math.prod(shape[1:]) + 1e-6)
    for order, sign in (("most_first", 1), ("least_first", -1)):
        mask = ranking.removed(ranks, fraction, order)
        assert mask.dtype == torch.bool
        assert mask.flatten(1).sum(1).tolist() == [gone] * 3
        for row, flags in zip(maps.flatten(1) * sign, mask.flatten(1), strict=True):
            if 0 < gone < len(row):
                assert row[flags].min() > row[~flags].max()


@pytest.mark.parametrize("side", [5, 7, 8])
def test_the_orders_are_complements(side):
    ranks = ranking.rank(coarse(4, side, side), seeds(4))
    for gone in range(side * side + 1):  # the fractions that name a whole number of units
        fraction = gone / side**2
        most = ranking.removed(ranks, fraction, "most_first")
        least = ranking.removed(ranks, 1 - fraction, "least_first")
        assert torch.equal(most, ~least)


def test_larger_fractions_remove_more_of_the_same():
    ranks = ranking.rank(coarse(4, 9, 9), seeds(4))
    for order in ("most_first", "least_first"):
        masks = [ranking.removed(ranks, each / 20, order) for each in range(21)]
        assert all((a <= b).all() for a, b in itertools.pairwise(masks))


@pytest.mark.parametrize("unit", ["pixel", "feature"])
@pytest.mark.parametrize("fill", [lambda images, gone: impute.constant(images, gone, value=0.7), impute.blur])
def test_erasing_keeps_kept_values_bit_for_bit(unit, fill):
    images = torch.rand(4, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    mask = torch.rand(4, *((7, 7) if unit == "pixel" else (3, 7, 7)), generator=torch.Generator().manual_seed(1)) < 0.4
    where = mask[:, None].expand_as(images) if unit == "pixel" else mask
    erased = masking.erase(images, mask, fill)
    assert torch.equal(images, before)
    assert torch.equal(erased[~where], images[~where])
    assert torch.equal(erased[where], fill(images, mask)[where])


@pytest.mark.parametrize("channels", [True, False])
@pytest.mark.parametrize(
    "fill",
    [
        lambda images, mask: impute.constant(images, mask, value=[0.1, 0.5, 0.9]),
        lambda images, mask: impute.constant(images, mask, value=0.123).double(),
        impute.image_mean,
        impute.blur,
        lambda images, _: torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1,
    ],
    ids=["constant", "double", "image_mean", "blur", "rand"],
)
@pytest.mark.parametrize("part", [0.0, 0.3, 1.0])
def test_erasing_in_eight_bits_is_erasing_and_rounding(part, fill, channels):
    stored = torch.arange(256, dtype=torch.uint8).repeat(3)[torch.randperm(768)].reshape(2, 3, 8, 16)
    images = masking.to_float(stored)
    mask = torch.rand(2, 3, 8, 16)[:, slice(None) if channels else 0] < part
    before = stored.clone()
    expected = masking.to_stored(masking.erase(images, mask, fill))
    assert torch.equal(masking.erase_stored(stored, images, mask, fill), expected)
    assert torch.equal(stored, before)


def test_a_value_that_is_none_ranks_first():
    maps = distinct(3, 4, 4)
    maps[1, 2, 3] = torch.nan
    ranks = ranking.rank(maps, seeds(3))
    assert ranks[1, 2, 3] == 0
    assert ranks.flatten(1).sort(1).values.unique(dim=0).tolist() == [list(range(16))]


def test_nothing_removed_is_the_same_image_and_everything_the_fill():
    def never(images, gone):
        raise AssertionError

    images = torch.rand(2, 3, 5, 5)
    assert torch.equal(masking.erase(images, torch.zeros(2, 5, 5, dtype=torch.bool), never), images)
    all_gone = masking.erase(images, torch.ones(2, 5, 5, dtype=torch.bool), impute.constant)
    assert (all_gone == 0).all()


@pytest.mark.parametrize("width", [0, 1, 4])
def test_padding_is_removed_pixels_around_the_image(width):
    images = torch.rand(2, 3, 5, 6)
    padded = masking.pad(images, width, lambda images, gone: impute.channel_mean(images, gone, mean=[0.1, 0.2, 0.3]))
    assert padded.shape == (2, 3, 5 + 2 * width, 6 + 2 * width)
    inside = padded[:, :, width : width + 5, width : width + 6]
    assert torch.equal(inside, images)
    for channel, value in enumerate((0.1, 0.2, 0.3)):
        total = padded[:, channel].double().sum() - inside[:, channel].double().sum()
        assert total.item() == pytest.approx(
            value * (padded[:, channel].numel() - images[:, channel].numel()), rel=1e-5
        )


def test_maps_fit_their_unit():
    flat, one, three = torch.rand(2, 5, 5), torch.rand(2, 1, 5, 5), torch.rand(2, 3, 5, 5)
    assert ranking.for_unit(flat, "pixel", 3) is flat
    assert torch.equal(ranking.for_unit(one, "pixel", 3), one[:, 0])
    assert torch.equal(ranking.for_unit(three, "feature", 3), three)
    for maps in (flat, one):  # one value for all channels of a pixel, told apart by the shuffle alone
        features = ranking.for_unit(maps, "feature", 3)
        assert torch.equal(
            features, flat.expand(3, 2, 5, 5).transpose(0, 1) if maps is flat else one.repeat(1, 3, 1, 1)
        )
        ranks = ranking.rank(features, seeds(2))
        assert torch.equal(ranks.long() // 3, ranking.rank(maps.reshape(2, 1, 5, 5), seeds(2)).long().expand_as(ranks))
    with pytest.raises(ValueError, match=words("3 post channel_sum")):
        ranking.for_unit(three, "pixel", 3)
    with pytest.raises(ValueError, match=words("2 post feature 3")):
        ranking.for_unit(three[:, :2], "feature", 3)


def test_eight_bits_go_there_and_back():
    stored = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(masking.to_stored(masking.to_float(stored)), stored)
    assert torch.equal(
        masking.to_stored(torch.tensor([-0.2, 0.0, 0.5, 1.0, 1.2]).reshape(1, 1, 1, 5)).flatten(),
        torch.tensor([0, 0, 128, 255, 255], dtype=torch.uint8),
    )
