"""Precision and the earth mover's distance: hand-made maps, full linear programs, and the distance on a line."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.stats import wasserstein_distance

from efface.base.types import Split
from efface.metrics import Point, metric
from efface.metrics.emd import distance, nearness
from efface.plug.call import Call
from small.batches import normal_numbers
from small.cases import BLACK, case_of, stored_maps
from small.messages import words

CHANNELS = (Call(call="efface.erase.post.channel_sum"),)


def values(name, folder, maps, masks, settings=None, **changes):
    n, *size = masks.shape
    split = Split(torch.zeros(n, 1, *size, dtype=torch.uint8), torch.zeros(n, dtype=torch.int64), masks=masks)
    here = case_of({"test": split}, maps={"test": stored_maps(folder, maps)}, **changes)
    formula = metric(name, settings or {})
    (probe,) = formula.probes(Point(0.0, 0, BLACK, CHANNELS, "pixel")).values()
    return formula.value({"located": probe(here), "moved": probe(here)})


def places(h, w):
    return np.array(list(itertools.product(range(h), range(w))), float)


def by_full_program(one, other):
    """The least cost of all plans that move one 3 x 3 mass onto another, with every pair of pixels."""
    n, at = one.size, places(*one.shape)
    ways = np.linalg.norm(at[:, None] - at[None], axis=2)
    rows = np.zeros((2 * n, n * n))
    for i in range(n):
        rows[i, i * n : (i + 1) * n] = 1
        rows[n + i, i::n] = 1
    return linprog(ways.ravel(), A_eq=rows, b_eq=np.concatenate([one.ravel(), other.ravel()]), method="highs-ipm").fun


def masses(count, h, w, seed=0):
    found = np.abs(normal_numbers(count, h, w, seed=seed).double().numpy())
    return found / found.sum((1, 2), keepdims=True)


def test_it_is_the_least_cost_of_all_plans():
    for one, other in zip(masses(5, 3, 3, seed=1), masses(5, 3, 3, seed=2), strict=True):
        assert distance(one.ravel(), other.ravel(), places(3, 3)) == pytest.approx(
            by_full_program(one, other), abs=1e-8
        )


def test_on_a_line_it_is_the_distance_of_the_distributions():
    for one, other in zip(masses(4, 1, 7, seed=3), masses(4, 1, 7, seed=4), strict=True):
        expected = wasserstein_distance(range(7), range(7), one.ravel(), other.ravel())
        assert distance(one.ravel(), other.ravel(), places(1, 7)) == pytest.approx(expected, abs=1e-9)


def test_it_is_a_distance():
    one, other, third = masses(3, 4, 4, seed=5)
    at = places(4, 4)

    def between(a, b):
        return distance(a.ravel(), b.ravel(), at)

    assert between(one, one) == 0
    assert between(one, other) == pytest.approx(between(other, one))
    assert between(one, third) <= between(one, other) + between(other, third) + 1e-9


def test_places_of_one_pixel_tell_the_value(tmp_path):
    masks = torch.zeros(3, 4, 5, dtype=torch.bool)
    masks[:, 0, 0] = True
    maps = torch.zeros(3, 4, 5)
    maps[0, 0, 0], maps[1, 3, 4], maps[2, 3, 0] = 2.0, -1.0, 0.5
    found = values("emd", tmp_path, maps, masks)["nearness"]
    np.testing.assert_allclose(found, [1, 0, 1 - 3 / 5], atol=1e-9)


def test_a_map_that_is_the_mask_is_nearest_and_zeros_or_no_object_have_no_value(tmp_path):
    masks = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.3
    maps = masks.float() * 0.3
    maps[1] *= -1  # the size counts, not the sign
    maps[2], masks[3] = 0, False
    found = values("emd", tmp_path, maps, masks)["nearness"]
    np.testing.assert_allclose(found[:2], 1, atol=1e-12)
    assert np.isnan(found[2:]).all()


def test_scale_changes_nothing_and_neither_does_the_batch(tmp_path):
    maps, masks = normal_numbers(5, 6, 7), torch.rand(5, 6, 7, generator=torch.Generator().manual_seed(1)) < 0.3
    found = values("emd", tmp_path, maps, masks)["nearness"]
    np.testing.assert_allclose(values("emd", tmp_path, 7 * maps, masks, max_batch=2)["nearness"], found, atol=1e-9)
    rows = torch.tensor([3, 1])
    np.testing.assert_allclose(values("emd", tmp_path, maps, masks, rows=rows)["nearness"], found[[3, 1]], atol=1e-9)


def test_cells_move_no_mass_by_more_than_half_their_diagonal():
    one, other = masses(2, 12, 12, seed=6)
    exact, coarse = (nearness(one, other, side=side) for side in (12, 6))
    diagonal = np.hypot(11, 11)
    assert abs(exact - coarse) <= 2 * np.hypot(0.5, 0.5) / diagonal
    assert exact != coarse
    blocks = np.kron(masses(2, 3, 3, seed=7), np.ones((4, 4)))  # mass spread evenly over cells of 4 x 4
    a, b = (each.reshape(3, 4, 3, 4).sum((1, 3)) for each in blocks)
    expected = 1 - 4 * distance(a.ravel() / 16, b.ravel() / 16, places(3, 3)) / diagonal
    assert nearness(*blocks, side=3) == pytest.approx(expected)


def test_precision_is_the_share_of_the_largest_values_on_the_object(tmp_path):
    masks = torch.tensor([[[True, True, False], [False, False, False]]]).expand(3, 2, 3).contiguous()
    maps = torch.tensor(
        [
            [[-3.0, 1.0, 2.0], [0.0, 0.5, 0.0]],  # -3 on it, 2 beside it
            [[0.0, 0.0, 5.0], [0.0, 0.0, 0.0]],  # one beside it; two of five zeros on it share the other place
            [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]],
        ]
    )
    found = values("precision", tmp_path, maps, masks)["precision"]
    np.testing.assert_allclose(found, [1 / 2, (2 / 5) / 2, 1 / 3], atol=1e-6)


def test_precision_is_the_relevance_rank_of_absolute_maps(tmp_path):
    maps, masks = normal_numbers(8, 6, 5), torch.rand(8, 6, 5, generator=torch.Generator().manual_seed(1)) < 0.4
    found = values("precision", tmp_path, maps, masks)["precision"]
    np.testing.assert_array_equal(found, values("relevance_rank", tmp_path, maps.abs(), masks)["overlap"])
    assert not np.array_equal(found, values("relevance_rank", tmp_path, maps, masks)["overlap"])


def test_a_grid_of_one_cell_is_refused():
    with pytest.raises(ValueError, match=words("emd side 1 2")):
        metric("emd", {"side": 1})
