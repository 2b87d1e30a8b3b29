"""Scores without cells of a grid: linear networks, games solved by hand, and definitions written out as loops."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from torch import nn

from efface.base import draws
from efface.base.types import Split
from efface.metrics import Point, metric
from efface.metrics.idsds import lacking_cells
from efface.metrics.shapley import coalitions, shapley_values
from efface.metrics.shared.cells import CellSums, over_cells
from efface.metrics.shared.subsets import cells
from efface.plug.call import Call
from efface.stages.extract import extract
from efface.stages.run.curves import planned_run
from efface.stages.run.run import Run
from efface.stages.train import train
from efface.stages.work.measuring import measure_missing
from efface.training.loop import TrainingSettings
from small.batches import noise_split, normal_numbers
from small.cases import (
    BLACK,
    CLASS,
    IMAGES,
    NOISE,
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
from small.studies import checked

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


class Middle(nn.Module):
    """The sum of the pixels in the middle of an image of 8 x 8, where a grid of three has its smallest cell."""

    def forward(self, images):
        inside = images[:, :, 3:5, 3:5].sum((1, 2, 3))
        return torch.stack([inside + images.mean((1, 2, 3)), -inside], 1)


@pytest.mark.parametrize("name", MAIN)
def test_positive_noise_scores_zero_on_average_where_cells_differ_in_size(tmp_path, name):
    count = 200
    white = Split(torch.full((count, 1, 8, 8), 255, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64))
    maps = draws.uniform(torch.arange(count), (8, 8))
    here = case_of({"test": white}, Middle(), maps={"test": stored_maps(tmp_path, maps)})
    for values in scored(
        name, here, {"cells": 3} if name == "single_deletion" else {"grid": 3, "score": "logit"}
    ).values():
        assert abs(values.mean()) < 4 * values.std() / np.sqrt(count)
        assert values.std() > 0.1


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


@pytest.mark.parametrize(
    ("name", "settings"), [("single_deletion", {"cells": 7}), ("idsds", {"cells": 7}), ("shapley", {"grid": 4})]
)
def test_more_cells_than_pixels_are_refused_in_the_word_of_the_setting(name, settings):
    shared, _ = probes_of(name, settings).values()
    ((setting, count),) = settings.items()
    with pytest.raises(ValueError, match=words(f"{setting} is {count} 3 pixels")):
        shared.check(Known(), torch.zeros(2, 3, 3, 3))


# In-domain: a fine-tuned network

TUNING = {"epochs": 2, "batch_size": 20, "lr": 0.01}


def trained_case(folder, maps, train, **changes):
    """The usual case, which may also train on these images."""
    data = {"train": train, "test": NOISE}
    return known_case(folder, maps, data=data, given_training=TrainingSettings(epochs=9), **changes)


def contributions(network, images, classes, indices):
    """The weights of the class times the image: what a method finds that explains a linear network truly."""
    return network.fc.weight.detach()[classes].unflatten(1, images.shape[1:]) * images


def test_contributions_to_the_fine_tuned_network_score_one(tmp_path):
    kept, train = [], noise_split(20, H, W, channels=3, seed=7, classes=4)

    def once(name, what, make):
        kept.append(make())
        return kept[-1]

    def of_the_given(network, *given):
        return contributions(Known(), *given)

    true = trained_case(tmp_path, normal_numbers(N, H, W), train, once=once, explain=contributions)
    far = {**TUNING, "lr": 3.0}
    np.testing.assert_allclose(scored("idsds", true, far)["correlation"], 1, atol=1e-6)
    assert not torch.allclose(kept[0]["fc.weight"], Known().fc.weight, atol=1e-3)
    assert all(torch.equal(each["fc.weight"], kept[0]["fc.weight"]) for each in kept)
    assert scored("idsds", replace(true, explain=of_the_given), far)["correlation"].max() < 0.99


def test_a_fine_tuning_that_changes_nothing_leaves_single_deletion(tmp_path):
    train, maps = noise_split(20, H, W, channels=3, seed=7, classes=4), normal_numbers(N, H, W)
    here = trained_case(tmp_path, maps, train, explain=lambda network, images, classes, indices: maps[indices])
    found = scored("idsds", here, {**TUNING, "lr": 1e-12, "score": "probability"})
    expected = scored("single_deletion", here, {"score": "probability"})
    np.testing.assert_allclose(found["correlation"], expected["correlation"], atol=1e-6)


def test_half_of_the_images_lack_one_cell_and_each_cell_is_lost_equally_often():
    lost = lacking_cells(4, draws.seeds_of("lost", torch.arange(16_000)))
    assert set(lost.sum(1).tolist()) == {0, 1}
    assert abs(lost.any(1).double().mean().item() - 0.5) < 0.02
    counts = lost.sum(0)
    assert counts.min() > 500 - 3 * 22
    assert counts.max() < 500 + 4 * 22
    assert torch.equal(lost[5:9], lacking_cells(4, draws.seeds_of("lost", torch.arange(5, 9))))


class Noting(Known):
    """Notes the images it is trained on."""

    def __init__(self, notes):
        super().__init__()
        self.notes = notes

    def forward(self, images):
        if self.training:
            self.notes.append(images.detach().clone())
        return super().forward(images)


def kept_once():
    """A `once` that makes each thing once."""
    kept = {}

    def once(name, what, make):
        return kept[name] if name in kept else kept.setdefault(name, make())

    return once


def test_it_is_trained_on_images_of_which_some_lack_a_cell_another_one_each_epoch(tmp_path):
    notes, white = [], Call(call="efface.impute.constant", kwargs={"value": 1.0})
    black = Split(torch.zeros(40, 3, H, W, dtype=torch.uint8), torch.arange(40) % 4)
    how = {"build": lambda: Noting(notes), "given_network": Noting([]), "once": kept_once(), "explain": contributions}
    here = trained_case(tmp_path, normal_numbers(N, H, W), black, **how)
    scored("idsds", here, {"epochs": 2, "batch_size": 40, "cells": 3}, white)
    labels, seen = cells(3, H, W), []
    for epoch in notes:
        where = epoch[:, 0] == 1
        assert torch.equal(epoch, where[:, None].expand_as(epoch).float())
        holed = [each for each in where if each.any()]
        assert 8 <= len(holed) <= 32
        assert all(torch.equal(each, labels == labels[each][0]) for each in holed)
        seen.append(sorted(each.numpy().tobytes() for each in where))
    assert len(seen) == 2
    assert seen[0] != seen[1]


def test_the_fine_tuning_is_that_of_the_paper_unless_told():
    fit = TrainingSettings(epochs=1, batch_size=7, crop=2, flip=True, keep="best", stop={"loss": 1.0})
    found = metric("idsds").probes(Point(0.0, 0, BLACK, (), "pixel"))["falls"].tuning.of(fit)
    assert (found.epochs, found.batch_size, found.crop, found.flip) == (30, 256, 2, True)
    assert (found.keep, found.stop) == ("last", None)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = found.optimizer([parameter])
    assert isinstance(optimizer, torch.optim.SGD)
    assert {name: optimizer.defaults[name] for name in ("lr", "momentum", "weight_decay")} == {
        "lr": 0.001,
        "momentum": 0.9,
        "weight_decay": 1e-4,
    }
    schedule, rates = found.schedule(optimizer, total_steps=30), []
    for _ in range(30):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, np.repeat([1e-3, 1e-4, 1e-5], 10))


def test_it_needs_training_images(tmp_path):
    here = known_case(tmp_path, normal_numbers(N, H, W), given_training=TrainingSettings(epochs=1))
    with pytest.raises(ValueError, match=words("idsds train split")):
        scored("idsds", here, TUNING)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cells": 1}, "cells 1"),
        ({"epochs": 0}, "epochs 0"),
        ({"lr": 0.0}, "lr 0.0"),
        ({"momentum": 1.0}, "momentum 1.0"),
        ({"decay": -1.0}, "decay -1.0"),
        ({"step": 0}, "step 0"),
        ({"batch_size": 0}, "batch_size 0"),
    ],
)
def test_settings_of_the_fine_tuning_that_are_none_are_refused(settings, said):
    with pytest.raises(ValueError, match=words(f"idsds {said}")):
        metric("idsds", settings)


# Through a study

ALL = [
    "single_deletion",
    {"name": "shapley", "kwargs": {"grid": 2}},
    {"name": "idsds", "kwargs": {"epochs": 1, "batch_size": 8}},
]


def measured(folder, *rounds):
    """The run of a study whose metrics are those of each round in turn."""
    folder.mkdir(exist_ok=True)
    for metrics in rounds:
        tree = {
            "out": str(folder / "run"),
            "data": {"call": "efface.data.patches.patches", "kwargs": {"n_train": 24, "n_test": 12, "size": 16}},
            "model": {"call": "small.networks.one_convolution", "kwargs": {"channels": 8, "places": 4}},
            "fit": {"epochs": 2, "batch_size": 8},
            "attribution_methods": [
                {"name": "random", "method": "efface.methods.control.random"},
                {"name": "gradient", "method": "efface.methods.gradient.gradient"},
            ],
            "post": ["channel_sum"],
            "metrics": metrics,
            "executor": "efface.execute.serial",
        }
        study = checked(folder, tree)
        train(study)
        assert extract(study) == []
        run = Run(study)
        assert measure_missing(planned_run(run)) == []
    return run


@pytest.mark.long
def test_a_study_shares_what_no_map_changes_and_goes_on_where_it_stopped(tmp_path):
    whole, resumed = measured(tmp_path / "whole", ALL), measured(tmp_path / "resumed", ALL[:1], ALL[:2], ALL)
    for run in (whole, resumed):
        probes = [row["probe"]["probe"] for row in run.results.records.values()]
        shared = {"deletions": 1, "coalitions": 1, "tuneddeletions": 1}
        assert {name: probes.count(name) for name in shared} == shared
        assert probes.count("cellsums") == 2 * 2  # of two methods and two grids
        assert probes.count("tunedsums") == 2
        assert len(list((run.folder / "kept").glob("idsds-*.pt"))) == 1
    found, expected = (
        {(each.metric, each.score, each.method): each.values for each in planned_run(run).curves}
        for run in (resumed, whole)
    )
    assert len(found) == 2 * 4
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])
        assert np.isfinite(values).any()
