"""Faithfulness and axioms on a linear network, whose every answer is known, and against plain loops."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from efface.base import draws
from efface.metrics import Point, metric
from efface.metrics.completeness import Sums, gaps
from efface.metrics.infidelity import Noise, Squares, infidelities, noise_effects, squares
from efface.metrics.monotonicity import Groups, group_effects, rising_share
from efface.metrics.shared.effects import pearson, spearman
from efface.metrics.shared.subsets import Subsets, cells, independent_subsets, random_subsets, subset_effects
from efface.plug.call import Call
from efface.study.metric_entry import MetricEntry
from small.batches import normal_numbers
from small.cases import BLACK, CLASS, IMAGES, WEIGHTS, C, Curved, H, Known, N, W, known_case, values_of
from small.messages import words

UNIFORM = Call(call="efface.metrics.sensitivity_n.uniform")
CHANNELS = (Call(call="efface.erase.post.channel_sum"),)
PATCH = Call(call="test_metric_faithfulness.halves")


def halves(images):
    """Units: three columns of an image's left part, one each, and the rest."""
    labels = torch.arange(W).clamp_max(3).expand(len(images), H, W)
    return labels.contiguous()


# Sensitivity-n and faithfulness correlation


@pytest.mark.parametrize("unit", ["pixel", "feature", PATCH])
@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.9])
def test_contributions_of_a_linear_network_correlate_fully(tmp_path, unit, fraction):
    post = () if unit == "feature" else CHANNELS
    for sign in (1, -1):
        here = known_case(tmp_path, sign * WEIGHTS * IMAGES)
        found = values_of(Subsets(fraction, 8, 0, "logit", BLACK, post, unit), here)
        np.testing.assert_allclose(found["pearson"], sign, atol=1e-6)
        if unit is not PATCH:  # so few units that a set comes twice: rounding orders what should tie
            np.testing.assert_allclose(found["spearman"], sign, atol=1e-6)


def test_cells_of_a_grid_are_erased_whole(tmp_path):
    found = values_of(
        Subsets(0.5, 9, 2, "logit", BLACK, CHANNELS, "pixel"),
        known_case(tmp_path, WEIGHTS * IMAGES),
    )
    np.testing.assert_allclose(found["pearson"], 1, atol=1e-6)
    assert cells(2, 5, 4).tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 3
    with pytest.raises(ValueError, match=words("grid 6 5")):
        cells(6, 9, 5)


@pytest.mark.parametrize(("h", "w", "grid"), [(32, 32, 9), (224, 224, 9), (7, 10, 3)])
def test_cells_are_the_small_grid_enlarged_by_its_nearest_pixel(h, w, grid):
    small = torch.arange(grid**2).reshape(1, 1, grid, grid).double()
    large = torch.nn.functional.interpolate(small, (h, w), mode="nearest-exact")
    assert torch.equal(cells(grid, h, w), large[0, 0].long())


PUBLISHED = {"grid": 3, "samples": 200, "sets": "independent", "undefined": "zero", "imputer": BLACK.model_dump()}
"""MuFidelity's published settings, but for a grid that fits these images."""


def mu_fidelity(network, images, classes, maps, drawn):
    """MuFidelity of xplique for each image, written out. `drawn`: a number in [0, 1) for each image, set and cell."""
    found = []
    for image, label, relevance, numbers in zip(images, classes, maps, drawn, strict=True):
        keep = (numbers >= 0.2).double().reshape(-1, 1, 3, 3)
        masks = torch.nn.functional.interpolate(keep, (H, W), mode="nearest-exact")[:, 0]
        with torch.no_grad():
            before = network(image[None])[0, label].item()
            after = network(image * masks[:, None].float())[:, label]
        attributed = [(relevance.double() * (1 - mask)).sum().item() for mask in masks]
        with np.errstate(invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = spearmanr(before - after.double().numpy(), attributed)[0]
        found.append(0.0 if np.isnan(value) else value)
    return found


def test_the_published_settings_of_mufidelity_give_its_number(tmp_path):
    maps = normal_numbers(N, H, W, seed=6)
    maps[1] = 0  # its sums do not vary
    network = Curved()
    entry = MetricEntry(name="mu", metric="faithfulness_correlation", kwargs=PUBLISHED)
    (probe,) = entry.formula.probes(Point(0.0, 0, BLACK, CHANNELS, "pixel")).values()
    score = probe(known_case(tmp_path, maps, given_network=network))
    seeds = draws.seeds_of("0 subsets", torch.arange(N))
    drawn = torch.stack([draws.uniform(draws.fold(seeds, k), (9,)) for k in range(200)], 1)
    expected = mu_fidelity(network, IMAGES, CLASS, maps, drawn)
    found = entry.formula.value({"subsets": score})["spearman"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[1] == 0
    assert np.abs(found).max() > 0.1


def test_independent_sets_have_each_unit_with_the_same_chance():
    labels = torch.arange(81).expand(4, 81)
    found = independent_subsets(labels, draws.seeds_of("x", torch.arange(4)), 0.2, 200)
    counts = found.sum(2).double()
    assert counts.mean().item() == pytest.approx(81 * 0.2, abs=4 * (81 * 0.16 / 800) ** 0.5)
    assert counts.var().item() == pytest.approx(81 * 0.16, rel=0.2)  # binomial
    grouped = torch.tensor([[0, 0, 1, 1, 2, 2]])
    each = independent_subsets(grouped, torch.tensor([3]), 0.5, 30)
    assert (each[:, 0, ::2] == each[:, 0, 1::2]).all()


def test_a_constant_map_has_no_value(tmp_path):
    found = values_of(Subsets(0.4, 5, 0, "logit", BLACK, (), "pixel"), known_case(tmp_path, torch.full((N, H, W), 0.1)))
    assert np.isnan(found["pearson"]).all()
    assert np.isnan(found["spearman"]).all()


@pytest.mark.parametrize("unit", ["pixel", "feature"])
def test_effects_are_the_loop(unit):
    network, shape = Curved(), (C, H, W) if unit == "feature" else (H, W)
    maps, removed = normal_numbers(N, *shape), normal_numbers(4, N, *shape, seed=7) > 0.3
    blank = torch.tensor([0.2, 0.5, 0.9])[:, None, None]

    def fill(images, mask):
        return blank.expand_as(images)

    sums, fallen = subset_effects(network, IMAGES, CLASS, maps, removed, fill, max_batch=10)
    for k in range(4):
        for i in range(N):
            where = removed[k, i].expand(C, H, W)
            changed = torch.where(where, blank, IMAGES[i])
            before, after = (network(each[None])[0, CLASS[i]].item() for each in (IMAGES[i], changed))
            assert sums[i, k] == pytest.approx(maps[i][removed[k, i]].double().sum().item(), abs=1e-6)
            assert fallen[i, k] == pytest.approx(before - after, abs=1e-5)
    with pytest.raises(ValueError, match=words("value each")):
        subset_effects(
            network,
            IMAGES,
            CLASS,
            normal_numbers(N, H, W) if maps.ndim == 4 else normal_numbers(N, C, H, W),
            removed,
            fill,
        )


def test_subsets_have_exactly_their_size_and_differ():
    labels = torch.arange(12).expand(3, 12)
    found = random_subsets(labels, draws.seeds_of("x", torch.arange(3)), 0.26, 50)
    assert (found.sum(2) == 3).all()
    assert len({tuple(row.tolist()) for row in found[:, 0]}) > 40
    np.testing.assert_allclose(found.float().mean((0, 1)), 0.25, atol=0.12)
    grouped = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1]])
    found = random_subsets(grouped, draws.seeds_of("x", torch.arange(2)), 0.5, 20)
    assert (found[:, 0].sum(1) == 2).all()  # one of three
    assert set(found[:, 1].sum(1).tolist()) == {2, 4}  # one of two
    assert not random_subsets(grouped, draws.seeds_of("x", torch.arange(2)), 0.1, 2).any()


def test_correlations_are_those_of_scipy_and_numpy():
    one, other = normal_numbers(5, 9).double().numpy(), normal_numbers(5, 9, seed=4).round().double().numpy()
    np.testing.assert_allclose(pearson(one, other), [np.corrcoef(*each)[0, 1] for each in zip(one, other, strict=True)])
    expected = [spearmanr(*each).statistic for each in zip(one, other, strict=True)]
    np.testing.assert_allclose(spearman(one, other), expected)
    assert np.isnan(pearson(one, np.full_like(one, 1 / 3))).all()


# Infidelity


def test_a_gradient_is_exact_for_noise_on_a_linear_network(tmp_path):
    found = values_of(Noise(7, 0.2, "logit", ()), known_case(tmp_path, WEIGHTS))
    np.testing.assert_allclose(found["infidelity"], 0, atol=1e-9)
    np.testing.assert_allclose(found["scaled"], 0, atol=1e-9)
    tripled = values_of(Noise(7, 0.2, "logit", ()), known_case(tmp_path, 3 * WEIGHTS))
    assert (tripled["infidelity"] > 1).all()
    np.testing.assert_allclose(tripled["scaled"], 0, atol=1e-9)


def test_contributions_are_exact_for_squares_on_a_linear_network(tmp_path):
    probe = Squares(7, 3, "logit", BLACK, ())
    found = values_of(probe, known_case(tmp_path, WEIGHTS * IMAGES))
    np.testing.assert_allclose(found["infidelity"], 0, atol=1e-9)
    pixels = values_of(probe, known_case(tmp_path, (WEIGHTS * IMAGES).sum(1)))
    np.testing.assert_allclose(pixels["infidelity"], 0, atol=1e-9)
    nothing = values_of(probe, known_case(tmp_path, torch.zeros(N, H, W)))
    np.testing.assert_allclose(nothing["infidelity"], nothing["scaled"])
    assert (nothing["scaled"] > 0.1).all()


def test_noise_against_captum():
    metrics = pytest.importorskip("captum.metrics")
    network, maps, steps = Curved(), normal_numbers(N, C, H, W), normal_numbers(5, N, C, H, W, seed=8) * 0.1

    def change(inputs):
        every = torch.stack([steps[:, i] for i in range(N)]).flatten(0, 1)  # captum: image by image
        return every, inputs - every

    for scaled in (False, True):
        expected = metrics.infidelity(
            network, change, IMAGES, maps, target=CLASS, n_perturb_samples=5, normalize=scaled
        )
        found = infidelities(
            *(each.numpy() for each in noise_effects(network, IMAGES, CLASS, maps, steps, max_batch=9))
        )
        np.testing.assert_allclose(found[scaled], expected.detach().double().numpy(), rtol=1e-4, atol=1e-5)


def test_infidelity_by_hand():
    plain, scaled = infidelities(np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[2.0, 4.0], [1.0, 3.0]]))
    np.testing.assert_allclose(plain, [2.5, 5.0])
    np.testing.assert_allclose(scaled, [0.0, 5.0])
    found = squares(4, 3, 2, torch.tensor([[[0.0, 0.0]], [[0.999, 0.5]]]))
    assert found[0, 0].int().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert found[1, 0].int().tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 1], [0, 1, 1]]
    with pytest.raises(ValueError, match=words("size 4 3")):
        squares(4, 3, 4, torch.zeros(1, 1, 2))


# Monotonicity


def test_groups_of_a_linear_network_have_the_effect_that_the_map_says(tmp_path):
    contributions = (WEIGHTS * IMAGES).sum(1)
    found = values_of(Groups(6, 3, "logit", BLACK, (), "pixel"), known_case(tmp_path, contributions))
    np.testing.assert_allclose(found["correlation"], 1, atol=1e-9)
    ordered = contributions.flatten(1).sort(1, descending=True).values.unflatten(1, (6, 5)).sum(2)
    np.testing.assert_allclose(found["rising"], (ordered >= 0).double().mean(1))


def test_group_effects_are_the_loop():
    network, ranks = Curved(), normal_numbers(N, H, W).flatten(1).argsort(1).argsort(1).unflatten(1, (H, W)).int()
    fills = [lambda images, mask: torch.zeros_like(images), lambda images, mask: torch.ones_like(images)]
    rising, changes = group_effects(network, IMAGES, CLASS, ranks, fills, steps=4, max_batch=7)
    cuts = [0, 7, 15, 22, 30]  # floor(30 k / 4)
    for i in range(N):
        for k in range(5):
            left = ranks[i] >= 30 - [0, 8, 15, 23, 30][k]  # least relevant first; the rest is black
            assert rising[i, k] == pytest.approx(network((IMAGES[i] * left)[None])[0, CLASS[i]].item(), abs=1e-5)
        for k in range(4):
            gone = (ranks[i] >= cuts[k]) & (ranks[i] < cuts[k + 1])
            after = [network(torch.where(gone, float(v), IMAGES[i])[None])[0, CLASS[i]].item() for v in (0, 1)]
            before = network(IMAGES[i][None])[0, CLASS[i]].item()
            assert changes[i, k] == pytest.approx(np.mean([(before - each) ** 2 for each in after]), abs=1e-4)


def test_the_square_change_divided_by_the_squared_score_has_the_same_rank_correlation(tmp_path):
    """Nguyen & Martinez divide by it; the page says that this changes no rank."""
    maps = normal_numbers(N, H, W)
    found = values_of(Groups(5, 1, "logit", BLACK, (), "pixel"), known_case(tmp_path, maps, given_network=Curved()))
    for i in range(N):
        order, image = maps[i].flatten().argsort(descending=True), IMAGES[i].flatten(1)
        before, effects, sizes = Curved()(IMAGES[i][None])[0, CLASS[i]].item(), [], []
        for group in order.split(H * W // 5):
            changed = image.clone()
            changed[:, group] = 0
            after = Curved()(changed.unflatten(1, (H, W))[None])[0, CLASS[i]].item()
            effects.append((before - after) ** 2 / before**2)
            sizes.append(maps[i].flatten()[group].double().sum().abs().item())
        assert found["correlation"][i] == pytest.approx(spearmanr(sizes, effects).statistic, abs=1e-6)


def test_a_random_order_rises_more_steadily_than_the_true_one():
    """Why `rising` judges no map: on a linear network each group of a random order holds a bit of everything."""
    contributions = normal_numbers(500, 64) + 0.7
    true = contributions.sort(1).values.unflatten(1, (8, 8)).sum(2).cumsum(1).numpy()
    random = contributions.unflatten(1, (8, 8)).sum(2).cumsum(1).numpy()
    assert rising_share(random).mean() > 0.95
    assert rising_share(true).mean() < 0.9


def test_a_step_that_changes_nothing_is_no_fall():
    assert rising_share(np.array([[1.0, 1.0, 2.0, 2.0 - 1e-9, 1.5]])).tolist() == [0.75]


def test_more_groups_than_units(tmp_path):
    with pytest.raises(ValueError, match=words("steps 31 30")):
        Groups(31, 1, "logit", BLACK, (), "pixel")(known_case(tmp_path, normal_numbers(N, H, W)))
    found = values_of(Groups(5, 1, "logit", BLACK, (), PATCH), known_case(tmp_path, normal_numbers(N, H, W)))
    assert np.isnan(found["correlation"]).all()
    assert np.isnan(found["rising"]).all()
    Groups(4, 1, "logit", BLACK, (), PATCH).check(nn.Identity(), IMAGES[:2])
    with pytest.raises(ValueError, match=words("steps 5 4")):
        Groups(5, 1, "logit", BLACK, (), PATCH).check(nn.Identity(), IMAGES[:2])


# Completeness


def test_completeness_of_a_linear_network(tmp_path):
    black = values_of(Sums("logit", BLACK), known_case(tmp_path, WEIGHTS * IMAGES))
    np.testing.assert_allclose(black["gap"], 0, atol=1e-4)
    np.testing.assert_allclose(black["relative"], 0, atol=1e-4)
    grey = Call(call="efface.impute.constant", kwargs={"value": 0.5})
    np.testing.assert_allclose(
        values_of(Sums("logit", grey), known_case(tmp_path, WEIGHTS * (IMAGES - 0.5)))["gap"], 0, atol=1e-4
    )
    zero = values_of(Sums("logit", BLACK), known_case(tmp_path, torch.zeros(N, H, W)))
    gained = (WEIGHTS * IMAGES).flatten(1).sum(1).abs().numpy()
    np.testing.assert_allclose(zero["gap"], gained, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(zero["relative"], 1)
    gap, relative = gaps(np.array([3.0, 2.0]), np.array([-1.0, 0.0]))
    assert gap.tolist() == [4.0, 2.0]
    assert relative[0] == 4
    assert np.isnan(relative[1])


# All of them


PROBES = [
    Subsets(0.4, 6, 0, "logit", UNIFORM, CHANNELS, "pixel"),
    Subsets(0.5, 6, 0, "probability", BLACK, CHANNELS, PATCH),
    Subsets(0.5, 6, 2, "logit", BLACK, CHANNELS, "pixel", "independent"),
    Squares(5, 2, "logit", UNIFORM, ()),
    Noise(5, 0.1, "logit", ()),
    Groups(4, 2, "logit", UNIFORM, CHANNELS, "pixel"),
    Sums("logit", UNIFORM),
]


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: type(probe).__name__)
def test_the_row_budget_changes_nothing(tmp_path, probe):
    maps = normal_numbers(N, C, H, W)
    one, other = (
        values_of(probe, known_case(tmp_path, maps, given_network=Curved(), max_batch=max_batch))
        for max_batch in (1, 64)
    )
    for name in one:
        assert one[name].dtype == np.float64
        assert np.isfinite(one[name]).all()
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5)
    seeded = values_of(probe, known_case(tmp_path, maps, given_network=Curved(), seed=1))
    assert any(not np.allclose(one[name], seeded[name], rtol=1e-3) for name in one)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: type(probe).__name__)
def test_every_setting_is_part_of_what_a_number_depends_on(probe):
    found = probe.identity()
    old = {"sets"} if vars(probe).get("sets") == "exact" else set()  # results from before this setting keep their keys
    assert set(vars(probe)) - old < set(found)
    assert {type(each) for each in found.values()} <= {str, int, float, dict, list}


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("sensitivity_n", {"samples": 2}, "samples 2 3"),
        ("sensitivity_n", {"samples": 0}, "samples 0"),
        ("faithfulness_correlation", {"fraction": 1.0}, "fraction 1.0"),
        ("faithfulness_correlation", {"grid": 1}, "grid 1 2"),
        ("infidelity", {"noise": -0.1}, "noise -0.1"),
        ("infidelity", {"perturbation": "squares"}, "perturbation squares"),
        ("monotonicity", {"steps": 2}, "steps 2 3"),
        ("completeness", {"score": "logits"}, "logits"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(name, settings, said):
    with pytest.raises(ValueError, match=words(said)):
        metric(name, settings)


def test_values_are_named_by_the_formula(tmp_path):
    here = known_case(tmp_path, normal_numbers(N, H, W))
    point = Point(0.5, 0, BLACK, (), "pixel")
    few = {"monotonicity": {"steps": 4}, "infidelity": {"size": 2}}
    for name in ("sensitivity_n", "faithfulness_correlation", "infidelity", "monotonicity", "completeness"):
        found = metric(name, few.get(name))
        scores = {each: probe(here) for each, probe in found.probes(point).items()}
        assert list(found.value(scores)) == list(found.direction)
        assert all(value.shape == (N,) for value in found.value(scores).values())


@pytest.mark.parametrize("unit", ["pixel", "feature"])
def test_one_image_tells_whether_the_groups_of_monotonicity_fit(unit):
    (probe,) = metric("monotonicity", {"steps": 10}).probes(Point(0.5, 0, BLACK, (), unit)).values()
    probe.check(Known(), torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=words("steps 10")):
        probe.check(Known(), torch.zeros(1, 3, 1, 2))


@pytest.mark.parametrize("x", [0.0, 0.5, 1.0])
def test_a_random_order_is_the_same_whatever_the_post(x):
    plain, squared = (Point(x, 0, BLACK, post, "pixel") for post in ((), (Call(call="efface.erase.post.square"),)))
    assert plain.perturb("random").identity() == squared.perturb("random").identity()
    assert (plain.perturb("most_first").identity() == squared.perturb("most_first").identity()) == (x in (0.0, 1.0))
