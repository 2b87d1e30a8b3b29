"""Randomisation metrics: similarities against scipy and scikit-image, networks drawn anew, what the probes promise."""

import copy
import math
from collections import OrderedDict

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from efface.base import draws
from efface.erase.masking import to_float
from efface.methods.backprop import guided_backprop
from efface.methods.cam import grad_cam
from efface.methods.control import random, sobel
from efface.methods.gradient import gradient, input_x_gradient
from efface.methods.occlusion import occlusion
from efface.metrics import Point, metric
from efface.metrics.convergence import Opened, absolute_cosine, answering, convergence
from efface.metrics.data_randomisation import data_randomisation, permuted
from efface.metrics.efficient_randomisation import efficient_randomisation, histogram_entropy
from efface.metrics.random_logit import other_class, random_logit
from efface.metrics.randomisation import randomisation
from efface.metrics.shared.layers import PRESETS, chosen, groups, reached, redrawn
from efface.metrics.shared.similarity import NAMES, rank_correlation, similarities, structural_similarity
from efface.models.resnet import resnet8
from efface.models.torchvision import load
from efface.plug.call import Call
from efface.training.loop import TrainingSettings
from small.batches import noise_split, normal_numbers
from small.cases import case_of, stored_maps
from small.messages import words
from small.networks import hooks

N, SIZE = 6, 8
SUM = (Call(call="efface.erase.post.channel_sum"),)
MEAN = Call(call="efface.impute.channel_mean")


# Similarities


def test_rank_correlation_is_scipys_with_ties_too():
    one, other = normal_numbers(5, 3, 12, 9), normal_numbers(5, 3, 12, 9, seed=1)
    other[1] = one[1].exp()  # the same order
    other[2] = -one[2]
    one[3], other[3] = (one[3] * 2).round(), (one[3] + other[3]).round()  # many ties
    found = rank_correlation(one, other)
    expected = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found[1].item() == pytest.approx(1)
    assert found[2].item() == pytest.approx(-1)


def test_a_constant_map_has_no_order():
    assert rank_correlation(torch.zeros(2, 9), normal_numbers(2, 9)).tolist() == [0, 0]
    assert rank_correlation(normal_numbers(2, 9), torch.ones(2, 9)).tolist() == [0, 0]
    assert rank_correlation(torch.zeros(2, 9), torch.ones(2, 9)).isnan().all()


@pytest.mark.parametrize(("h", "w"), [(11, 11), (16, 20)])
def test_structural_similarity_is_that_of_scikit_image(h, w):
    skimage = pytest.importorskip("skimage.metrics")
    one, other = normal_numbers(4, h, w).tanh(), normal_numbers(4, h, w, seed=1).tanh()
    other[1] = one[1]
    other[2] = one[2] * 0.5 + other[2] * 0.1
    for span in (2.0, 1.0):
        found = structural_similarity(one, other, span=span)
        how = {"data_range": span, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        pairs = zip(one.double().numpy(), other.double().numpy(), strict=True)
        np.testing.assert_allclose(found, [skimage.structural_similarity(a, b, **how) for a, b in pairs], atol=1e-10)


def test_structural_similarity_of_small_and_flat_maps():
    assert structural_similarity(torch.zeros(2, 4, 7), torch.zeros(2, 4, 7)).tolist() == [1, 1]
    # one pixel: mean and nothing else, (2ab + c1) / (a2 + b2 + c1) with c1 = (0.01 * 2)^2
    a, b = torch.full((1, 1, 1), 0.5), torch.full((1, 1, 1), -0.2)
    assert structural_similarity(a, b).item() == pytest.approx((-0.2 + 4e-4) / (0.29 + 4e-4))


def test_similarities_are_of_summed_maps_whatever_their_scale():
    one, other = normal_numbers(3, 2, 12, 12), normal_numbers(3, 2, 12, 12, seed=1)
    found = similarities(one, other)
    assert tuple(found) == NAMES
    np.testing.assert_allclose(found["spearman"], rank_correlation(one.sum(1), other.sum(1)))
    np.testing.assert_allclose(found["spearman_absolute"], rank_correlation(one.abs().sum(1), other.abs().sum(1)))
    for name, value in similarities(one * 1e-6, other * 3e5).items():
        np.testing.assert_allclose(value, found[name], atol=1e-6)
    mirrored = similarities(one, -one)
    assert mirrored["spearman"].tolist() == pytest.approx([-1] * 3)
    assert mirrored["spearman_absolute"].tolist() == pytest.approx([1] * 3)
    assert mirrored["ssim_absolute"].tolist() == pytest.approx([1] * 3)
    assert (mirrored["ssim"] < 0.95).all()


# Layers


def test_layers_go_from_the_output_to_the_image(tiny):
    network = tiny(seed=1)
    assert [name for (name,) in groups(network, None)] == ["fc", "layer2.1", "layer2.0", "layer1.1", "layer1.0"]
    assert groups(network, ("fc", "layer1")) == [("fc",), ("layer1.0", "layer1.1")]
    wrapped = nn.Sequential(OrderedDict(network=network))
    assert groups(wrapped, ("layer1",)) == [("network.layer1.0", "network.layer1.1")]
    with pytest.raises(ValueError, match=words("layer11 Tiny layer1")):
        groups(network, ("layer11",))
    with pytest.raises(ValueError, match=words("dropout Tiny")):
        groups(network, ("dropout",))


@pytest.mark.parametrize(("preset", "network"), [("resnet_small", "ours"), ("resnet", "resnet18")])
def test_the_lists_that_ship_name_every_parameter_of_their_networks(preset, network):
    made = resnet8() if network == "ours" else load(network)
    named = [name for group in groups(made, PRESETS[preset]) for name in group]
    assert sorted(named) == sorted(name for (name,) in groups(made, None))


def test_the_list_of_inception_v3_is_in_it():
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        network = torchvision.models.Inception3(init_weights=False)
    assert len(groups(network, PRESETS["inception_v3"])) == 15


def test_shares_are_rounded_up():
    assert [reached(5, share / 8) for share in range(9)] == [0, 1, 2, 2, 3, 4, 4, 5, 5]
    assert [reached(3, share / 3) for share in range(4)] == [0, 1, 2, 3]


def test_modes(tiny):
    network, layers = tiny(seed=1), ("fc", "layer2", "layer1")
    both = ["layer2.0", "layer2.1"]
    assert chosen(network, layers, 0.0, "cascading") == chosen(network, layers, 0.0, "independent") == []
    assert chosen(network, layers, 2 / 3, "cascading") == ["fc", *both]
    assert chosen(network, layers, 2 / 3, "independent") == both


@pytest.mark.parametrize("draw", ["reset", "normal"])
def test_only_the_named_modules_are_drawn_anew_and_statistics_stay(tiny, draw):
    network = tiny(seed=1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = redrawn(network, ["fc", "layer2.1"], draw=draw, seed=3)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    changed = {name for name, value in found.state_dict().items() if not torch.equal(value, before[name])}
    norm = {"reset": {"layer2.1.weight"}, "normal": set()}[draw]  # the bias was 0, without spread, before
    assert changed == {"fc.weight", "fc.bias"} | norm
    again = redrawn(network, ["layer1.0", "fc"], draw=draw, seed=3)
    assert torch.equal(again.fc.weight, found.fc.weight)  # the module's own draw
    assert not torch.equal(redrawn(network, ["fc"], draw=draw, seed=4).fc.weight, found.fc.weight)
    assert not found.training


def test_normal_draws_have_the_tensors_own_mean_and_spread():
    network = nn.Sequential(nn.Linear(200, 200))
    nn.init.normal_(network[0].weight, 0.7, 0.2)
    weight = redrawn(network, ["0"], draw="normal", seed=0)[0].weight
    assert weight.mean().item() == pytest.approx(0.7, abs=0.01)
    assert weight.std().item() == pytest.approx(0.2, abs=0.01)
    assert redrawn(network, ["0"], draw="reset", seed=0)[0].weight.abs().max() <= 1 / math.sqrt(200)


# Probes


def case_and_ticks(folder, network, method=gradient, *, max_batch=4, **changes):
    """A case whose stored maps are the method's own, and the list that takes the work that its probe reports."""
    data = changes.pop("data", {"train": noise_split(16, SIZE, seed=1), "test": noise_split(N, SIZE, seed=0)})
    images = to_float(data["test"].images)
    classes = network.eval()(images).argmax(1)

    def explain(network, images, classes, rows):
        found = method(network, images, classes, seeds=draws.seeds_of("maps", rows)) if method is random else None
        return method(network, images, classes) if found is None else found

    maps = explain(network, images, classes, torch.arange(len(images))).detach()
    ticks = []
    how = {
        "target_classes": classes,
        "maps": {"test": stored_maps(folder, maps, classes=classes)},
        "mean": torch.zeros(3),
        "max_batch": max_batch,
        "advance": ticks.append,
        "explain": explain,
    }
    return case_of(data, network, **how | changes), ticks


def only(made, fraction=0.0, post=SUM):
    (probe,) = made.probes(Point(fraction, 0, MEAN, post, "pixel")).values()
    return probe


ALL = [randomisation(), efficient_randomisation(), random_logit(), convergence(pairs=1)]


@pytest.mark.parametrize("made", ALL)
def test_rows_change_nothing_and_progress_is_the_cost(tmp_path, tiny, made):
    probe = only(made, 0.5)
    found = []
    for max_batch in (1, 4, 64):
        here, ticks = case_and_ticks(tmp_path, tiny(seed=2), max_batch=max_batch)
        found.append(probe(here))
        assert sum(ticks) == probe.cost({"train": 16, "test": N}, None)
    for other in found[1:]:
        for name, values in other.values.items():
            np.testing.assert_allclose(values, found[0].values[name], atol=1e-5)
    assert set(made.value(dict.fromkeys(made.probes(Point(0.5, 0, MEAN, SUM, "pixel")), found[0]))) == set(
        made.direction
    )


def test_at_0_the_method_is_asked_again_and_controls_stay_alike(tmp_path, tiny):
    made = randomisation(layers=["fc", "layer2", "layer1"])
    assert made.points_for((3, SIZE, SIZE)) == (0, 1 / 3, 2 / 3, 1)
    for method in (gradient, sobel, random):
        here, _ = case_and_ticks(tmp_path, tiny(seed=2), method)
        for share in made.points_for((3, SIZE, SIZE)):
            score = only(made, share)(here)
            for name in NAMES:
                if share == 0 or method is not gradient:
                    np.testing.assert_allclose(score.values[name], 1, atol=1e-5)
                else:
                    assert score.mean(name) < 0.95


def test_a_linear_network_loses_its_order_when_its_weights_are_drawn_anew(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 4, bias=False))
    here, _ = case_and_ticks(tmp_path, network)
    fresh = redrawn(network, ["1"], draw="reset", seed=0)[1].weight.detach()
    old = network[1].weight.detach()
    expected = rank_correlation(
        *(each[here.target_classes].unflatten(1, (3, SIZE, SIZE)).sum(1) for each in (old, fresh))
    )
    np.testing.assert_allclose(only(randomisation(), 1.0)(here).values["spearman"], expected, atol=1e-6)


def test_settings_are_checked_when_they_are_read():
    assert metric("randomisation").points_for((3, 8, 8)) == tuple(each / 8 for each in range(9))
    assert len(metric("randomisation", {"layers": "resnet"}).points_for((3, 8, 8))) == 8
    assert metric("randomisation", {"points": 2, "mode": "independent"}).points_for((3, 8, 8)) == (0, 0.5, 1)
    wrong = {
        "resnet1 resnet": {"layers": "resnet1"},
        "layers fc": {"layers": ["fc", "fc"]},
        "points 0": {"points": 0},
        "mode upwards": {"mode": "upwards"},
        "draw zero": {"draw": "zero"},
    }
    for said, settings in wrong.items():
        with pytest.raises(ValueError, match=words(said)):
            metric("randomisation", settings)
    for name, settings in (
        ("efficient_randomisation", {"bins": 1}),
        ("convergence", {"pairs": 0}),
        ("data_randomisation", {"epochs": 0}),
    ):
        with pytest.raises(ValueError, match=f"{name}.*at least"):
            metric(name, settings)


def test_identities_differ_where_numbers_do():
    def text(made, share):
        return str(only(made, share).identity())

    others = [randomisation(mode="independent"), randomisation(draw="normal"), randomisation(layers=["fc"])]
    others.append(randomisation(statistics="reset"))
    assert "statistics" not in text(randomisation(), 0.5)  # results from before this setting keep their keys
    assert len({text(made, 0.5) for made in (randomisation(), *others)}) == 5
    assert len({text(made, 0.0) for made in (randomisation(), *others)}) == 1  # nothing is drawn anew
    posts = [only(efficient_randomisation(), post=each).identity() for each in ((), SUM)]
    assert posts[0] != posts[1]


# Entropy


def test_histogram_entropy_is_that_of_numpys_histogram():
    maps = normal_numbers(4, 3, 9, 7)
    maps[1] = maps[1].round()
    for bins in (2, 10, 100):
        found = histogram_entropy(maps, bins=bins)
        for value, each in zip(found, maps, strict=True):
            shares = np.histogram(each.double().numpy(), bins=bins)[0] / each.numel()
            assert value.item() == pytest.approx(-(shares[shares > 0] * np.log(shares[shares > 0])).sum(), abs=1e-9)
    assert histogram_entropy(torch.ones(2, 5, 5)).tolist() == [0, 0]
    assert histogram_entropy(torch.arange(8.0).reshape(1, 8), bins=8).item() == pytest.approx(math.log(8))


def test_the_rise_of_entropy_is_relative_and_missing_without_entropy(tmp_path, tiny):
    made = efficient_randomisation(bins=20)
    here, _ = case_and_ticks(tmp_path, tiny(seed=2), sobel)
    np.testing.assert_allclose(made.value({"entropy": only(made)(here)})["entropy_rise"], 0, atol=1e-6)
    score = type(only(made)(here))({"entropy": np.array([2.0, 0.0]), "randomised": np.array([3.0, 1.0])})
    np.testing.assert_array_equal(made.value({"entropy": score})["entropy_rise"], [0.5, np.nan])


class FixedConvolution(nn.Conv2d):
    """Fresh weights are always the same, whichever generator is seeded."""

    def reset_parameters(self):
        same_numbers(self)


class FixedLinear(nn.Linear):
    def reset_parameters(self):
        same_numbers(self)


def same_numbers(module):
    generator = torch.Generator().manual_seed(module.weight.numel())
    with torch.no_grad():
        for each in module.parameters(recurse=False):
            each.copy_(torch.randn(each.shape, generator=generator) * 0.3)


def trained_like():
    """A network with statistics far from those of a fresh one; one BatchNorm has no parameters."""
    network = nn.Sequential(
        FixedConvolution(3, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.BatchNorm2d(5, affine=False),
        nn.Flatten(),
        FixedLinear(5 * SIZE**2, 4),
    ).eval()
    with torch.no_grad():
        for number, (name, value) in enumerate(network.state_dict().items()):
            drawn = normal_numbers(*value.shape, seed=number).to(value) if value.is_floating_point() else value
            value.copy_(drawn.abs() * 0.05 + 0.01 if name.endswith("running_var") else drawn)
    return network


def by_quantus(kind, here, network, **settings):
    """Scores of an image by a metric of quantus, whose method gives the signed sum over channels."""
    import quantus

    def explained(model, inputs, targets, **_):
        found = gradient(model, torch.as_tensor(inputs).float(), torch.as_tensor(targets).long())
        return found.detach().sum(1, keepdim=True).numpy()

    images = to_float(here.data["test"].images)
    found = getattr(quantus, kind)(disable_warnings=True, abs=False, normalise=False, **settings)(
        model=network,
        x_batch=images.numpy(),
        y_batch=here.target_classes.numpy(),
        a_batch=None,
        explain_func=explained,
        device="cpu",
        channel_first=True,
    )
    return np.asarray(found)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # what quantus and what it imports warn of
def test_the_rise_of_entropy_is_that_of_quantus_with_its_sign(tmp_path):
    network = trained_like()
    here, _ = case_and_ticks(tmp_path, network)
    made, kept = efficient_randomisation(), efficient_randomisation(statistics="keep")
    found = made.value({"entropy": only(made)(here)})["entropy_rise"]
    theirs = by_quantus("EfficientMPRT", here, network)
    np.testing.assert_allclose(found, theirs, atol=1e-5)
    assert np.abs(theirs).max() > 0.01
    assert not np.allclose(kept.value({"entropy": only(kept)(here)})["entropy_rise"], theirs, atol=1e-3)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # what quantus and what it imports warn of
def test_the_similarity_of_a_network_that_is_all_redrawn_is_that_of_quantus_once_its_statistics_are_fresh(tmp_path):
    import quantus

    network = trained_like()
    here, _ = case_and_ticks(tmp_path, network)
    of = quantus.similarity_func.correlation_spearman
    theirs = by_quantus("MPRT", here, network, similarity_func=of, skip_layers=True, return_last_correlation=True)
    found = {how: only(randomisation(statistics=how), 1.0)(here).values["spearman"] for how in ("keep", "reset")}
    np.testing.assert_allclose(found["reset"], theirs, atol=1e-5)
    assert not np.allclose(found["keep"], theirs, atol=1e-3)


def test_statistics_are_kept_or_start_afresh_with_either_draw():
    network = trained_like()
    names = [name for (name,) in groups(network, None, "reset")]
    assert names == ["5", "3", "1", "0"]  # from the output down
    assert [name for (name,) in groups(network, None)] == ["5", "1", "0"]  # without the one that has no parameters
    for draw in ("reset", "normal"):
        fresh = redrawn(network, names, draw=draw, seed=3, statistics="reset")
        kept = redrawn(network, names, draw=draw, seed=3, statistics="keep")
        for place in (1, 3):
            assert (fresh[place].running_mean == 0).all()
            assert (fresh[place].running_var == 1).all()
            assert torch.equal(kept[place].running_mean, network[place].running_mean)
            assert torch.equal(kept[place].running_var, network[place].running_var)
        torch.testing.assert_close(fresh[5].weight, kept[5].weight)


# Another class


def test_the_other_class_is_never_the_explained_one():
    logits, classes = normal_numbers(400, 5), torch.arange(400) % 5
    seeds = draws.seeds_of("other", torch.arange(400))
    found = other_class(logits, classes, other="random", seeds=seeds)
    assert not (found == classes).any()
    assert torch.equal(found[7:9], other_class(logits[7:9], classes[7:9], other="random", seeds=seeds[7:9]))
    counts = torch.bincount((found - classes) % 5, minlength=5)
    assert counts[0] == 0
    assert counts[1:].min() > 70  # 100 expected, 3.5 standard deviations below
    best = logits.argmax(1)
    runner = other_class(logits, best, other="runner_up", seeds=seeds)
    assert torch.equal(runner, logits.topk(2).indices[:, 1])
    with pytest.raises(ValueError, match=words("1 class 2")):
        other_class(normal_numbers(3, 1), torch.zeros(3, dtype=torch.int64), other="random", seeds=seeds[:3])


def test_mirrored_classes_have_opposite_maps_and_class_blind_maps_are_alike(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2, bias=False))
    network[1].weight.data[1] = -network[1].weight.data[0]
    here, _ = case_and_ticks(tmp_path, network)
    for other in ("random", "runner_up"):
        score = only(random_logit(other=other))(here)
        np.testing.assert_allclose(score.values["spearman"], -1, atol=1e-6)
        np.testing.assert_allclose(score.values["spearman_absolute"], 1, atol=1e-6)
    here, _ = case_and_ticks(tmp_path, network, sobel)
    np.testing.assert_allclose(only(random_logit())(here).values["ssim"], 1)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # what quantus and what it imports warn of
def test_random_logit_of_a_linear_network_is_that_of_quantus(tmp_path):
    import quantus

    torch.manual_seed(3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2))  # of two classes, the other one is no draw
    here, _ = case_and_ticks(tmp_path, network, input_x_gradient)
    ours = only(random_logit())(here).values["spearman"]

    def explained(model, inputs, targets, **_):
        maps = input_x_gradient(model, torch.as_tensor(inputs).float(), torch.as_tensor(targets).long())
        return maps.detach().sum(1, keepdim=True).numpy()

    images = to_float(here.data["test"].images)
    of = quantus.similarity_func.correlation_spearman
    plain = {"normalise": False, "disable_warnings": True}
    theirs = quantus.RandomLogit(similarity_func=of, num_classes=2, **plain)(
        model=network,
        x_batch=images.numpy(),
        y_batch=here.target_classes.numpy(),
        a_batch=explained(network, images, here.target_classes),
        explain_func=explained,
        device="cpu",
    )
    assert np.ptp(ours) > 0.05
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


# Permuted labels


def test_labels_are_permuted():
    targets = torch.arange(50) % 4
    found = permuted(targets, seed=1)
    assert torch.equal(found.sort().values, targets.sort().values)
    assert not torch.equal(found, targets)
    assert torch.equal(found, permuted(targets, seed=1))
    assert not torch.equal(found, permuted(targets, seed=2))


def test_a_network_is_trained_on_permuted_labels_once_and_says_what_it_memorised(tmp_path):
    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 4))

    made, kept = data_randomisation(epochs=60), {}

    def once(name, what, make):
        if str(what) not in kept:
            kept[str(what)] = make()
        return kept[str(what)]

    choices = TrainingSettings(epochs=2, batch_size=16, optimizer=Call(call="torch.optim.Adam", kwargs={"lr": 1e-2}))
    here, ticks = case_and_ticks(tmp_path, build(), build=build, given_training=choices, once=once)
    probe = only(made)
    assert probe.needs.training
    assert made.needs_fit
    score = probe(here)
    assert sum(ticks) == probe.cost({"train": 16, "test": N}, choices) == 3 * 60 * 16 + N
    assert made.value({"alike": score})["memorised"].tolist() == [1.0] * N  # 16 images in 192 dimensions
    assert abs(score.mean("spearman")) < 0.3
    (weights,) = kept.values()
    logits = to_float(here.data["train"].images).flatten(1) @ weights["network.1.weight"].T + weights["network.1.bias"]
    labels = permuted(here.data["train"].targets, seed=draws.seed_of("0 permuted labels"))
    assert torch.equal(logits.argmax(1), labels)
    again = probe(here)
    assert len(kept) == 1
    for name, values in score.values.items():
        np.testing.assert_array_equal(values, again.values[name])


# Convergence


def test_absolute_cosine():
    one = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1e-30, 0.0], [0.0, 0.0]])
    other = torch.tensor([[-3.0, -4.0], [0.0, 2.0], [1e30, 1e30], [1.0, 1.0]])
    found = absolute_cosine(one, other)
    np.testing.assert_allclose(found[:3], [1, 0, math.sqrt(0.5)], atol=1e-7)
    assert found[3].isnan()


def test_the_gradient_of_a_linear_layer_sends_signals_back_by_its_matrix(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 5, bias=False))
    here, _ = case_and_ticks(tmp_path, network)
    probe = only(convergence(pairs=1, points=1), 1.0)
    opened = probe.opened(here, to_float(here.data["test"].images[:1]))
    one, other = opened.signals @ network[1].weight.detach()
    expected = absolute_cosine(one[None], other[None]).item()
    np.testing.assert_allclose(probe(here).values["cosine"], expected, atol=1e-5)
    start = only(convergence(pairs=1, points=1), 0.0)
    signals = start.opened(here, to_float(here.data["test"].images[:1])).signals
    assert signals.shape == (2, 3 * SIZE * SIZE)
    found = start(here).values
    np.testing.assert_allclose(found["start"], found["cosine"], atol=1e-5)  # nothing lies between
    np.testing.assert_allclose(
        start(here).values["cosine"], absolute_cosine(signals[:1], signals[1:]).item(), atol=1e-5
    )


def test_a_layer_of_rank_one_lets_all_signals_converge(tmp_path):
    network = nn.Sequential(
        OrderedDict(
            flat=nn.Flatten(), narrow=nn.Linear(3 * SIZE * SIZE, 1), wide=nn.Linear(1, 30), last=nn.Linear(30, 4)
        )
    )
    here, _ = case_and_ticks(tmp_path, network)
    made = convergence(layers=["last", "wide", "narrow"])
    found = [only(made, share)(here) for share in made.points_for((3, SIZE, SIZE))]
    assert found[0].mean("cosine") < 0.3
    assert [each.mean("cosine") for each in found[1:]] == pytest.approx([1, 1, 1], abs=1e-5)
    chance = math.sqrt(2 / math.pi / (3 * SIZE * SIZE))  # of two random vectors
    assert found[0].mean("random") == pytest.approx(chance, abs=0.05)


def test_any_method_sends_signals_back_and_class_blind_ones_converge(tmp_path, tiny):
    made = convergence(layers=["fc", "layer2", "layer1"], pairs=1)
    assert made.may_lack_points  # a method whose layer lies behind a cut has no point there, and still a number
    last = {}
    for method in (gradient, input_x_gradient, guided_backprop, occlusion, sobel, random, grad_cam):
        here, _ = case_and_ticks(tmp_path, tiny(seed=2), method)
        found = [only(made, share)(here).values["cosine"] for share in made.points_for((3, SIZE, SIZE))]
        last[method.__name__] = np.nanmean(found[-1])
        if method is grad_cam:  # its layer lies behind the first cuts
            assert np.isnan(found[0]).all()
        else:
            assert np.isfinite(found).all()
            assert np.min(found) >= 0
            assert np.max(found) < 1 + 1e-6
    assert last["sobel"] == pytest.approx(1, abs=1e-6)
    assert last["random"] == pytest.approx(1, abs=1e-6)
    assert last["gradient"] < 0.99


def test_a_cut_network_answers_with_its_layer(tiny):
    network, images = tiny(seed=2).eval(), torch.rand(3, 3, SIZE, SIZE)
    signals = normal_numbers(2, 6 * SIZE * SIZE)
    expected = network.layer1(images - 0.5).flatten(1) @ signals.T / math.sqrt(6 * SIZE * SIZE)
    torch.testing.assert_close(Opened(network, "layer1", signals).eval()(images), expected)
    assert hooks(network) == 0


def test_layers_stand_in_the_order_in_which_they_answer():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first, self.unused = nn.Linear(5, 4), nn.Conv2d(3, 5, 3), nn.Linear(2, 2)

        def forward(self, images):
            return self.last(self.first(images).mean((2, 3)))

    assert answering(Turned(), torch.rand(1, 3, SIZE, SIZE)) == ["first", "last"]


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("draw", ["reset", "normal"])
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_weights_that_are_computed_from_others_are_redrawn(draw, norm):
    network = nn.Sequential(norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Flatten(), norm(nn.Linear(144, 5))).eval()
    images = torch.rand(2, 3, 8, 8)
    before = network(images).detach()  # with a graph: old weight_norm keeps a weight that is no leaf
    every = chosen(network, None, 1.0, "cascading")
    found = redrawn(network, every, draw=draw, seed=0)
    assert (found(images).detach() - before).abs().max() > 0.05 * before.abs().max()
    for layer in (0, 3):
        drawn, given = (each[layer].weight.detach().flatten() for each in (found, network))
        assert abs(float(torch.nn.functional.cosine_similarity(drawn, given, 0))) < 0.5
    torch.testing.assert_close(network(images).detach(), before)


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.tril() + weight.tril(-1).transpose(-1, -2)


PARAMETRIZED = {
    "weight norm": nn.utils.parametrizations.weight_norm,
    "spectral norm": nn.utils.parametrizations.spectral_norm,
    "without inverse": lambda module: nn.utils.parametrize.register_parametrization(module, "weight", Symmetric()),
}


@pytest.mark.parametrize("kind", PARAMETRIZED)
@pytest.mark.parametrize("draw", ["reset", "normal"])
def test_a_parametrized_module_is_one_layer(draw, kind):
    plain = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)).eval()
    network = copy.deepcopy(plain)
    for at in (0, 2):
        PARAMETRIZED[kind](network[at])
    assert chosen(network, None, 0.5, "cascading") == ["2"]
    assert chosen(network, None, 1.0, "cascading") == ["2", "0"]
    assert chosen(network, ("2",), 1.0, "cascading") == ["2"]
    found = redrawn(network, ["2"], draw=draw, seed=0)
    assert type(found[2]) is type(network[2]), "it is parametrized as before"
    assert torch.equal(found[0].weight, network[0].weight)
    assert not torch.isclose(found[2].weight, network[2].weight).any()
    assert not torch.isclose(found[2].bias, network[2].bias).any()
    if kind == "weight norm" and draw == "reset":
        drawn = found[2].weight.detach()
        assert drawn.abs().max() <= 6**-0.5, "the bound of a fresh linear layer of 6 inputs"
        assert drawn.std() > 0.15, "its standard deviation is 6**-0.5 / 3**0.5 = 0.24"
