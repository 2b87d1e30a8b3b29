"""Robustness: methods whose movement is known, captum with the same draws, and a study with every such metric."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from efface.base import draws
from efface.methods.gradient import gradient, input_x_gradient
from efface.metrics import Point, metric
from efface.metrics.shared.neighbours import Neighbours, moved, steps
from efface.stages.extract import extract
from efface.stages.run.curves import planned_run
from efface.stages.run.run import Run
from efface.stages.work.measuring import measure_missing
from efface.study.study import check
from small.cases import BLACK, CLASS, IMAGES, WEIGHTS, C, Curved, H, Known, N, W, known_case, values_of
from small.messages import words

FAMILY = {
    "sensitivity_n": {},
    "faithfulness_correlation": {"samples": 5},
    "infidelity": {"samples": 4, "size": 2},
    "monotonicity": {"steps": 4},
    "completeness": {},
    "max_sensitivity": {"samples": 3},
    "local_lipschitz": {"samples": 3},
    "sparseness": {},
    "complexity": {},
}


def asking(method, asked=None):
    """What a case offers as `explain`."""

    def explain(network, images, classes, rows):
        if asked is not None:
            asked.append((images.clone(), classes.clone(), rows.clone()))
        return method(network, images, classes)

    return explain


def near(tmp_path, method, network, probe=None, **changes):
    here = known_case(tmp_path, torch.zeros(N, H, W), given_network=network, explain=asking(method), **changes)
    return values_of(probe or Neighbours(0.05, 4, "uniform"), here)


def test_the_gradient_of_a_linear_network_does_not_move(tmp_path):
    found = near(tmp_path, gradient, Known())
    assert all((each == 0).all() for each in found.values())


def test_gradient_times_image_of_a_linear_network_moves_by_the_noise(tmp_path):
    found = near(tmp_path, input_x_gradient, Known())
    weights = WEIGHTS
    seeds, ratios, slopes = draws.seeds_of("0 neighbours", torch.arange(N)), [], []
    for k in range(4):
        noise = steps(draws.fold(seeds, k), (C, H, W), 0.05, "uniform")
        assert noise.abs().max() <= 0.05
        away = (weights * noise).flatten(1).norm(dim=1)
        ratios.append(away / (weights * IMAGES).flatten(1).norm(dim=1))
        slopes.append(away / noise.flatten(1).norm(dim=1))
    np.testing.assert_allclose(found["max"], torch.stack(ratios).amax(0), rtol=1e-4)
    np.testing.assert_allclose(found["mean"], torch.stack(ratios).mean(0), rtol=1e-4)
    np.testing.assert_allclose(found["slope"], torch.stack(slopes).amax(0), rtol=1e-4)


def test_movement_by_hand():
    here, there = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]]), torch.tensor([[[3.0, 9.0]], [[1.0, 0.0]]])
    step = torch.tensor([[[[0.0, 2.0]]], [[[0.5, 0.0]]]])
    np.testing.assert_allclose(moved(here, there, step), [[1.0, np.nan], [2.5, 2.0], [0.5, np.nan]])


def test_against_captum(tmp_path):
    metrics = pytest.importorskip("captum.metrics")
    network, radius, samples = Curved(), 0.1, 5
    seeds = draws.seeds_of("0 neighbours", torch.arange(N))
    noises = torch.stack([steps(draws.fold(seeds, k), (C, H, W), radius, "uniform") for k in range(samples)], 1)

    def perturbed(inputs, radius):
        return (inputs + noises.flatten(0, 1),)

    expected = metrics.sensitivity_max(
        lambda images: (gradient(network, images[0], CLASS.repeat_interleave(len(images[0]) // N)),),
        IMAGES,
        perturb_func=perturbed,
        perturb_radius=radius,
        n_perturb_samples=samples,
    )
    found = near(tmp_path, gradient, network, Neighbours(radius, samples, "uniform"))
    np.testing.assert_allclose(found["max"], expected, rtol=1e-5)


def test_the_same_class_is_explained_with_the_same_draws_and_the_row_budget_changes_nothing(tmp_path):
    asked = []
    here = known_case(
        tmp_path, torch.zeros(N, H, W), given_network=Curved(), explain=asking(gradient, asked), max_batch=4
    )
    some = values_of(Neighbours(0.05, 3, "gaussian"), here)
    assert [len(images) for images, *_ in asked] == [4] * 4 + [2] * 4
    for images, classes, rows in asked:
        assert torch.equal(classes, CLASS[rows])
        assert (images - IMAGES[rows]).abs().max() < 0.4
    assert torch.equal(asked[0][0], IMAGES[:4])
    for max_batch in (1, 64):
        other = values_of(Neighbours(0.05, 3, "gaussian"), replace(here, max_batch=max_batch))
        for name in some:
            np.testing.assert_allclose(some[name], other[name], rtol=1e-3)


def test_both_metrics_ask_the_method_once():
    point = Point(0.0, 0, BLACK, (), "pixel")
    found = [next(iter(metric(name).probes(point).values())) for name in ("max_sensitivity", "local_lipschitz")]
    assert found[0] == found[1]
    assert found[0].needs.method
    with pytest.raises(ValueError, match=words("radius -1.0")):
        metric("max_sensitivity", {"radius": -1.0})
    with pytest.raises(ValueError, match=words("noise normal")):
        metric("local_lipschitz", {"noise": "normal"})


@pytest.mark.long
def test_every_metric_of_these_families_in_a_study(tmp_path):
    absolute = {
        "name": "absolute",
        "metric": "efface.metrics.sensitivity_n.sensitivity_n",
        "kwargs": {
            "fractions": [0.6, 0.3],
            "imputer": "efface.metrics.sensitivity_n.uniform",
            "post": ["efface.erase.post.absolute", "efface.erase.post.channel_sum"],
        },
    }
    tree = {
        "out": str(tmp_path / "run"),
        "data": "small.batches.redder",
        "model": "small.networks.one_filter_each",
        "attribution_methods": [
            {"name": "gradient", "method": "efface.methods.gradient.gradient"},
            {"name": "random", "method": "efface.methods.control.random"},
        ],
        "post": ["efface.erase.post.absolute", "efface.erase.post.channel_sum"],
        "metrics": [*({"name": name, "kwargs": kwargs} for name, kwargs in FAMILY.items()), absolute],
        "fractions": [0.5],
        "executor": "efface.execute.serial",
    }
    made = check(tree, tmp_path / "study.yml")
    assert extract(made) == []
    assert measure_missing(planned_run(Run(made))) == []
    found = {(each.metric, each.score, each.method): each for each in planned_run(Run(made)).curves}
    for name, kwargs in FAMILY.items():
        for score in metric(name, kwargs).direction:
            for method in ("gradient", "random"):
                curve = found[name, score, method]
                assert curve.values.shape == (8, 9 if name == "sensitivity_n" else 1)
                assert np.isfinite(curve.values).mean() > 0.9
    assert found["sensitivity_n", "correlation", "random"].at == tuple(k / 10 for k in range(1, 10))
    assert found["absolute", "correlation", "random"].at == (0.3, 0.6)
    # convolution, mean and a linear layer: the gradient is the same wherever the image is, random maps know nothing
    assert (found["max_sensitivity", "max", "gradient"].values < 1e-5).all()
    assert (found["max_sensitivity", "max", "random"].values == 0).all()
    kinds = [row["probe"]["probe"] for row in Run(made).results.records.values()]
    assert kinds.count("neighbours") == kinds.count("concentration") == 2  # two metrics each, two methods
