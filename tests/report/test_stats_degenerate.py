"""What is wrong with maps, on maps made to be wrong."""

import math

import pytest
import torch

from efface.report.stats import degeneracy
from small.messages import words

SHAPE = (12, 8, 8)


def good(shape=SHAPE, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def where(found):
    return found.nonzero().flatten().tolist()


def test_nothing_is_wrong_with_good_maps():
    found = degeneracy(good(), good(seed=1))
    assert not (found.nonfinite | found.constant | found.alike | found.blind.bool()).any()
    assert (found.levels.unique().tolist(), found.tied.unique().tolist()) == ([1], [0])


@pytest.mark.parametrize("value", [0.0, 1e-30, -3.7])
def test_constant_maps_are_found_and_judged_as_nothing_else(value):
    maps = good()
    maps[3:6] = value
    maps[4] *= 1 + 1e-7 * good((8, 8))
    found = degeneracy(maps)
    assert where(found.constant) == where(found.levels.isnan()) == where(found.tied.isnan()) == [3, 4, 5]
    assert not found.alike.any()


def test_small_maps_are_not_constant():
    assert not degeneracy(good() * 1e-30).constant.any()


def test_values_that_are_not_finite_are_found_and_judge_nothing_else():
    maps = good()
    maps[0, 0, 0], maps[1, :2], maps[2] = math.nan, math.inf, math.nan
    found = degeneracy(maps, good(seed=1))
    assert where(found.nonfinite) == where(found.levels.isnan()) == where(found.blind.isnan()) == [0, 1, 2]
    assert not (found.constant | found.alike).any()


def test_ties_by_hand():
    found = degeneracy(torch.tensor([[[0.0, 0, 0], [1, 2, 2]], [[5, 4, 3], [2, 1, 0]], [[0, 0, 0], [0, 0, 1]]]))
    assert found.levels.tolist() == pytest.approx([3 / 6, 6 / 6, 2 / 6])
    assert found.tied.tolist() == pytest.approx([5 / 6, 0, 5 / 6])


@pytest.mark.parametrize("odd", [0, 4, 9])
def test_one_map_for_most_images_is_found_at_any_scale_wherever_another_stands(odd):
    maps = good((1, 8, 8)) * torch.linspace(0.1, 1000, 10)[:, None, None]
    assert where(degeneracy(maps).alike) == list(range(10))
    for other in (torch.zeros(8, 8), good((8, 8), 3), torch.full((8, 8), math.nan)):
        maps[odd] = other
        assert where(degeneracy(maps).alike) == [each for each in range(10) if each != odd]
    assert not degeneracy(maps[:1]).alike.any()
    assert not degeneracy(maps[:0]).alike.any()


def test_of_two_groups_the_larger_one_counts():
    maps = good()
    maps[[2, 5]], maps[[1, 4, 7]] = maps[2].clone(), maps[1].clone()
    assert where(degeneracy(maps).alike) == [1, 4, 7]


def test_maps_that_are_blind_to_the_class_are_found():
    maps, others = good(), good(seed=1)
    others[:4] = maps[:4] * 2 + 1e-7
    assert where(degeneracy(maps, others).blind) == [0, 1, 2, 3]
    assert not degeneracy(maps, -maps).blind.any()
    assert degeneracy(maps).blind.isnan().all()


def test_maps_of_other_images_are_refused():
    with pytest.raises(ValueError, match=words("maps (12, 8, 8) (6, 8, 8)")):
        degeneracy(good(), good((6, 8, 8)))
