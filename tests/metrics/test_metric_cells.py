"""Scores without cells of a grid: linear networks, games solved by hand, and definitions written out as loops."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from torch import nn

from efface.metrics import Point, metric
from efface.metrics.shapley import coalitions, shapley_values
from efface.metrics.shared.cells import CellSums, over_cells
from efface.metrics.shared.subsets import cells
from efface.plug.call import Call
from efface.types import Split
from small.batches import normal_numbers
from small.cases import (
    BLACK,
    CLASS,
    IMAGES,
    WEIGHTS,
    Curved,
    H,
    Known,
    N,
    W,
    case_of,
    known_case,
    stored_maps,
    values_of,
)
from small.messages import words

CHANNELS = (Call(call="efface.erase.post.channel_sum"),)
NOISY = Call(call="efface.metrics.sensitivity_n.uniform")
LOGIT = {"single_deletion": {"cells": 4}, "shapley": {"grid": 3, "score": "logit"}}
MAIN = {"single_deletion": "correlation", "shapley": "spearman"}


def probes_of(name, settings, imputer=BLACK):
    return metric(name, settings).probes(Point(0.0, 0, imputer, CHANNELS, "pixel"))


def scored(name, here, settings=None, imputer=BLACK):
    """Its values, having checked what its probes cost."""
    settings = LOGIT[name] if settings is None else settings
    found = {each: probe(here) for each, probe in probes_of(name, settings, imputer).items()}
    return metric(name, settings).value(found)


class Game(nn.Module):
    """Four players, the pixels of a 2 x 2 image: the first two together give 1, the third gives 3, the fourth none."""

    def forward(self, images):
        one, two, three, four = images.sum(1).flatten(1).unbind(1)
        return torch.stack([one * two + 3 * three, 0 * four], 1)


def game(folder, maps):
    split = Split(torch.full((len(maps), 1, 2, 2), 255, dtype=torch.uint8), torch.zeros(len(maps), dtype=torch.int64))
    return case_of({"test": split}, Game(), maps={"test": stored_maps(folder, maps)})


@pytest.mark.parametrize("name", MAIN)
def test_contributions_of_a_linear_network_score_one(tmp_path, name):
    for sign in (1, -1):
        found = scored(name, known_case(tmp_path, sign * WEIGHTS * IMAGES))
        for values in found.values():
            np.testing.assert_allclose(values, sign, atol=1e-6)


@pytest.mark.parametrize("name", MAIN)
def test_it_costs_what_it_says(tmp_path, name):
    passes = {"single_deletion": 17, "shapley": 512}[name]
    here = known_case(tmp_path, WEIGHTS * IMAGES)
    shared, own = probes_of(name, LOGIT[name]).values()
    values_of(shared, here)
    values_of(own, here)
    assert shared.cost({"test": N}, None) == passes * N
    assert not shared.needs.of_method, "all methods share it"


def test_a_game_solved_by_hand(tmp_path):
    maps = torch.tensor([[[1.0, 2.0], [3.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]], [[0.5, 0.5], [3.0, 0.0]]])
    here = game(tmp_path, maps)
    values = over_cells(probes_of("shapley", {"grid": 2, "score": "logit"})["values"](here))
    np.testing.assert_allclose(values, [[0.5, 0.5, 3, 0]] * 3, atol=1e-6)
    falls = over_cells(probes_of("single_deletion", {"cells": 2})["falls"](here))
    np.testing.assert_allclose(falls, [[1, 1, 3, 0]] * 3, atol=1e-6)
    found = scored("shapley", here, {"grid": 2, "score": "logit"})
    one = scored("single_deletion", here, {"cells": 2})["correlation"]
    for row, each in enumerate(maps.flatten(1).numpy()):
        assert found["spearman"][row] == pytest.approx(spearmanr(each, [0.5, 0.5, 3, 0])[0])
        assert found["pearson"][row] == pytest.approx(pearsonr(each, [0.5, 0.5, 3, 0])[0])
        assert one[row] == pytest.approx(spearmanr(each, [1, 1, 3, 0])[0])
    assert found["pearson"][2] == pytest.approx(1)


@pytest.mark.parametrize("name", MAIN)
def test_maps_in_all_orders_score_zero_on_average(tmp_path, name):
    orders = torch.tensor(list(itertools.permutations([0.0, 1.0, 2.0, 3.0]))).reshape(24, 2, 2)
    settings = {"cells": 2} if name == "single_deletion" else {"grid": 2}
    for values in scored(name, game(tmp_path, orders), settings).values():
        assert values.mean() == pytest.approx(0, abs=1e-9)
        assert values.max() > 0.8


@pytest.mark.parametrize("score", ["probability", "logit", "log_probability"])
@pytest.mark.parametrize("grid", [2, 3])
def test_shapley_values_add_up_to_the_gain_over_the_empty_image(tmp_path, grid, score):
    network = Curved()
    here = known_case(tmp_path, WEIGHTS * IMAGES, given_network=network)
    values = over_cells(probes_of("shapley", {"grid": grid, "score": score})["values"](here))
    with torch.no_grad():
        full, empty = network(IMAGES).double(), network(torch.zeros_like(IMAGES)).double()
    turned = {
        "logit": lambda x: x,
        "probability": lambda x: x.softmax(1),
        "log_probability": lambda x: x.log_softmax(1),
    }
    full, empty = (turned[score](logits)[torch.arange(N), CLASS] for logits in (full, empty))
    np.testing.assert_allclose(values.sum(1), full - empty, atol=1e-5)


def test_shapley_values_are_the_mean_contribution_over_all_orders():
    players = 4
    scores = normal_numbers(3, 2**players, seed=4).double()
    expected = torch.zeros(3, players, dtype=torch.float64)
    orders = list(itertools.permutations(range(players)))
    for order in orders:
        present = 0
        for player in order:
            expected[:, player] += (scores[:, present | 1 << player] - scores[:, present]) / len(orders)
            present |= 1 << player
    torch.testing.assert_close(shapley_values(scores), expected)
    assert coalitions(2).tolist() == [[True, True], [False, True], [True, False], [False, False]]


@pytest.mark.parametrize("name", MAIN)
@pytest.mark.parametrize("imputer", [BLACK, NOISY])
def test_neither_batch_nor_rows_change_a_value(tmp_path, name, imputer):
    settings = LOGIT["single_deletion"] if name == "single_deletion" else {"grid": 2}
    maps = normal_numbers(N, H, W)

    def at(**changes):
        return scored(name, known_case(tmp_path, maps, given_network=Curved(), **changes), settings, imputer)

    whole = at(max_batch=64)
    assert np.isfinite(whole[MAIN[name]]).all()
    for size in (1, 3, 20):
        for value, found in at(max_batch=size).items():
            np.testing.assert_allclose(found, whole[value], atol=1e-6)
    rows = torch.tensor([4, 1])
    for value, found in at(rows=rows).items():
        np.testing.assert_allclose(found, whole[value][rows], atol=1e-6)


@pytest.mark.parametrize("name", MAIN)
def test_a_constant_map_has_no_value_and_neither_has_a_network_that_looks_at_nothing(tmp_path, name):
    maps = normal_numbers(N, H, W)
    maps[2] = 0.3  # cells of 6 x 5 pixels differ in size, so its sums differ
    found = scored(name, known_case(tmp_path, maps))
    for values in found.values():
        assert np.isnan(values).tolist() == [False, False, True, False, False, False]
    blind = Known()
    nn.init.zeros_(blind.fc.weight)
    for values in scored(name, known_case(tmp_path, maps, given_network=blind)).values():
        assert np.isnan(values).all()


def test_cells_that_do_nothing_tie(tmp_path):
    weights = torch.zeros(4, 3, H, W)
    weights[:, :, :2, :2] = normal_numbers(4, 3, 2, 2)  # in the cell at the upper left
    network = Known()
    network.fc.weight.data = weights.flatten(1)
    here = known_case(tmp_path, network.of(CLASS) * IMAGES, given_network=network)
    falls = over_cells(probes_of("single_deletion", {"cells": 2})["falls"](here))
    assert (falls[:, 1:] == 0).all()
    for name, settings in (("single_deletion", {"cells": 2}), ("shapley", {"grid": 2, "score": "logit"})):
        np.testing.assert_allclose(scored(name, here, settings)[MAIN[name]], 1, atol=1e-9)


def test_sums_are_those_of_a_loop(tmp_path):
    maps = normal_numbers(N, 3, H, W)
    found = over_cells(CellSums(3, CHANNELS)(known_case(tmp_path, maps)))
    labels = cells(3, H, W)
    for cell in range(9):
        expected = [
            sum(each[:, y, x].sum().item() for y in range(H) for x in range(W) if labels[y, x] == cell) for each in maps
        ]
        np.testing.assert_allclose(found[:, cell], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("single_deletion", {"cells": 1}, "cells 1 2 32"),
        ("single_deletion", {"cells": 33}, "cells 33 2 32"),
        ("shapley", {"grid": 1}, "grid 1 2 4"),
        ("shapley", {"grid": 5}, "grid 5 2 4"),
    ],
)
def test_grids_that_cost_too_much_or_show_nothing_are_refused(name, settings, said):
    with pytest.raises(ValueError, match=words(f"{name} {said}")):
        metric(name, settings)


@pytest.mark.parametrize(("name", "settings"), [("single_deletion", {"cells": 7}), ("shapley", {"grid": 4})])
def test_more_cells_than_pixels_are_refused(name, settings):
    shared, _ = probes_of(name, settings).values()
    with pytest.raises(ValueError, match=words("grid 3 pixels")):
        shared.check(Known(), torch.zeros(2, 3, 3, 3))
