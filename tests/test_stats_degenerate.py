"""What is wrong with maps, on maps made to be wrong."""

import math

import pytest
import torch

from efface.stats import degeneracy
from efface.stats.degenerate import NOTHING, merged

SHAPE = (12, 8, 8)


def good(shape=SHAPE, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_good_maps_say_nothing():
    found = degeneracy([good()], [good(seed=1)])
    assert (found.maps, found.judged, found.nonfinite, found.constant, found.blind_share) == (12, 12, 0, 0, 0)
    assert (found.level_share, found.tied_share, found.fewest_levels) == (1, 0, 64)
    assert 0.5 < found.spread <= 1
    assert found.says() == ()


@pytest.mark.parametrize("value", [0.0, 1e-30, -3.7])
def test_constant_maps_are_counted(value):
    maps = good()
    maps[3:6] = value
    maps[4] *= 1 + 1e-7 * good((8, 8))
    found = degeneracy([maps])
    assert (found.constant, found.constant_share, found.judged) == (3, 0.25, 9)
    assert found.says() == ("3 of 12 maps are constant: their order is the tie rule's.",)
    assert found.level_share == 1


def test_small_maps_are_not_constant():
    assert degeneracy([good() * 1e-30]).constant == 0


def test_values_that_are_not_finite_are_counted_and_judge_nothing_else():
    maps = good()
    maps[0, 0, 0], maps[1, :2] = math.nan, math.inf
    found = degeneracy([maps], [good(seed=1)])
    assert (found.nonfinite, found.nonfinite_values, found.judged, found.constant, found.paired) == (2, 17, 10, 0, 10)
    assert "2 of 12 maps hold 17 values" in found.says()[0]
    assert found.spread <= 1


def test_ties_by_hand():
    maps = torch.tensor([[[0.0, 0, 0], [1, 2, 2]], [[5, 4, 3], [2, 1, 0]], [[0, 0, 0], [0, 0, 1]]])
    found = degeneracy([maps])
    assert found.level_share == pytest.approx((3 + 6 + 2) / 6 / 3)
    assert found.tied_share == pytest.approx((5 + 0 + 5) / 6 / 3)
    assert found.fewest_levels == 2
    assert "fewest distinct values: 2" in found.says()[0]


def test_one_map_for_all_images_is_found_at_any_scale():
    same = good((1, 8, 8)) * torch.linspace(0.1, 1000, 12)[:, None, None]
    found = degeneracy(same.split(5))
    assert found.spread < 1e-6
    assert found.says() == ("All 12 maps are the same but for scale: they do not depend on the image.",)
    assert degeneracy([torch.cat([same, good((1, 8, 8), 3)])]).spread > 0.1
    alone = degeneracy([same[:1]])
    assert math.isnan(alone.spread)
    assert alone.says() == ()


def test_maps_that_are_blind_to_the_class_are_found():
    maps, others = good(), good(seed=1)
    others[:4] = maps[:4] * 2 + 1e-7
    found = degeneracy(maps.split(5), others.split(5))
    assert (found.paired, found.blind, found.blind_share) == (12, 4, pytest.approx(1 / 3))
    assert "4 of 12 maps are the same for another class" in found.says()[-1]
    turned = degeneracy([maps], [-maps])
    assert turned.blind == 0
    assert math.isnan(degeneracy([maps]).blind_share)


@pytest.mark.parametrize("size", [1, 5, 12])
def test_blocks_change_nothing(size):
    maps, others = good((12, 3, 4, 4)), good((12, 3, 4, 4), 1)
    maps[2], maps[5, 0, 0, 0], others[7] = 0.5, math.nan, maps[7]
    maps[8].clamp_(min=0)
    whole, parts = degeneracy([maps], [others]), degeneracy(maps.split(size), others.split(size))
    for name in ("maps", "nonfinite", "constant", "judged", "fewest_levels", "paired", "blind", "spread"):
        assert getattr(parts, name) == getattr(whole, name), name
    assert (parts.level_share, parts.tied_share) == (pytest.approx(whole.level_share), pytest.approx(whole.tied_share))
    assert torch.equal(parts.lowest, whole.lowest)


def test_parts_join_in_any_order():
    one, two = degeneracy([good()]), degeneracy([torch.zeros(SHAPE)])
    there, back = merged(one, two), merged(two, one)
    assert (
        (there.maps, there.constant, there.fewest_levels)
        == (24, 12, 64)
        == (back.maps, back.constant, back.fewest_levels)
    )
    assert there.spread == back.spread == one.spread
    empty = merged(NOTHING, NOTHING)
    assert empty.says() == ()
    assert math.isnan(empty.constant_share)
    assert degeneracy([]) == NOTHING


def test_blocks_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"a block of maps is \(12, 8, 8\), that for another class \(6, 8, 8\)"):
        degeneracy([good()], [good((6, 8, 8))])
    with pytest.raises(ValueError, match="that for another class nothing"):
        degeneracy([good()], [])
    with pytest.raises(ValueError, match="64 and 16 units"):
        degeneracy([good(), good((2, 4, 4))])
