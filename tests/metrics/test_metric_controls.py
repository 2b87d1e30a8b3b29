"""F-Fidelity and the two controls: mask leak, and whether a fill can be told from the image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from efface.base import draws
from efface.base.types import Split
from efface.data.patches import patches
from efface.erase.masking import to_float
from efface.erase.ranking import rank
from efface.metrics import Point, metric
from efface.metrics.f_fidelity import FineTune, dropped, fine_tuned
from efface.metrics.imputation_detectability import Detect, detection
from efface.metrics.probes import Erasure, Perturb
from efface.plug.call import Call
from efface.report.stats import areas, interval
from efface.stages.extract import extract
from efface.stages.run.curves import planned_run
from efface.stages.run.run import Run
from efface.stages.train import train
from efface.stages.work.measuring import measure_missing
from efface.study.study import check
from efface.training.loop import TrainingSettings
from small.cases import case_of, stored_maps
from small.messages import words
from small.networks import one_convolution, seeded
from small.studies import checked

BLACK = Call(call="efface.impute.constant")
MEAN = Call(call="efface.impute.channel_mean")
BLUR = Call(call="efface.impute.blur", kwargs={"sigma": 1.0})
NETWORK = {"call": "small.networks.one_convolution", "kwargs": {"channels": 8, "places": 4}}


def eight_filters():
    return one_convolution(**NETWORK["kwargs"])


def splits(count=24, size=16):
    return patches(n_train=40, n_test=count, size=size)


def fitted_case(data, maps=None, **changes):
    """A case of a network of eight filters that may train for three epochs."""
    given = {
        "build": eight_filters,
        "maps": maps or {},
        "given_training": TrainingSettings(epochs=3, batch_size=16),
    }
    return case_of(**{"data": data, "network": seeded(eight_filters).eval()} | given | changes)


# F-Fidelity: what is dropped


@pytest.mark.parametrize(
    ("share", "alpha", "beta", "explanation", "rest"),
    [
        (0.1, 0.5, 0.1, 5, 10),  # 10 pixels of 100, half of them; of 90 no more than 10
        (0.5, 0.5, 0.1, 10, 10),  # the cap on both sides
        (0.95, 0.5, 0.1, 10, 2),
        (0.3, 1.0, 1.0, 30, 70),  # no cap: all of a side
        (0.0, 0.5, 0.1, 0, 10),
        (1.0, 0.5, 0.2, 20, 0),
    ],
)
@pytest.mark.parametrize("side", ["explanation", "rest"])
def test_a_hole_has_its_size_and_its_side(share, alpha, beta, explanation, rest, side):
    ranks = rank(torch.randn(7, 10, 10), torch.arange(7))
    gone = dropped(ranks, share, side, torch.arange(7), alpha=alpha, beta=beta)
    inside = ranks < round(share * 100) if side == "explanation" else ranks >= round(share * 100)
    assert not (gone & ~inside).any()
    assert gone.flatten(1).sum(1).tolist() == [explanation if side == "explanation" else rest] * 7


def test_every_unit_of_a_side_goes_equally_often():
    ranks = torch.arange(16).reshape(1, 4, 4).repeat(4000, 1, 1)
    gone = dropped(ranks, 0.5, "rest", draws.seeds_of("often", torch.arange(4000)), alpha=0.5, beta=1.0)
    often = gone.float().mean(0).flatten()
    assert (often[:8] == 0).all()
    assert (often[8:] - 0.5).abs().max() < 4 * np.sqrt(0.25 / 4000)


def test_groups_go_whole_and_each_image_has_its_own_number_of_them():
    ranks = torch.tensor([[[0, 0, 1, 1], [2, 2, 3, 3]], [[0, 0, 0, 0], [1, 1, 1, 1]]])
    gone = dropped(ranks, 0.5, "explanation", torch.arange(2), alpha=1.0, beta=1.0, grouped=True)
    assert torch.equal(gone, ranks < torch.tensor([2, 1])[:, None, None])
    half = dropped(ranks, 0.5, "rest", torch.arange(2), alpha=0.5, beta=1.0, grouped=True)
    assert half.flatten(1).sum(1).tolist() == [2, 0]  # one of two groups; none of one


# F-Fidelity: the score


def untuned(here):
    """A run's store that hands out the given weights as if they were the fine-tuned ones."""
    return lambda _name, _what, _make: here.state_dict()


@pytest.fixture
def maps(tmp_path):
    return {"test": stored_maps(tmp_path, torch.randn(24, 16, 16, generator=torch.Generator().manual_seed(2)))}


def test_with_no_cap_and_whole_sides_it_is_MoRF_and_LeRF(maps):
    """alpha = beta = 1 drops the explanation whole, and the rest whole."""
    given = seeded(eight_filters).eval()
    here = fitted_case(splits(), maps, once=untuned(given))
    found = FineTune(0.25, MEAN, (), "pixel", 3, 1.0, 1.0, 1, 1.0)(here).values
    clean = Perturb(Erasure("most_first", 0.0, MEAN))(here).values
    for name, order, fraction in (("plus", "most_first", 0.25), ("minus", "least_first", 0.75)):
        after = Perturb(Erasure(order, fraction, MEAN))(here).values
        for prefix, value in (("", "accuracy"), ("probability_", "probability")):
            lost = clean[value].astype(np.float64) - after[value].astype(np.float64)
            np.testing.assert_allclose(found[prefix + name], lost, atol=1e-6)


def test_the_score_is_the_mean_over_holes(maps):
    given = seeded(eight_filters).eval()
    here, test = fitted_case(splits(), maps, once=untuned(given)), splits()["test"]
    probe = FineTune(0.5, BLACK, (), "pixel", 4, 0.5, 0.3, 1, 1.0)
    images, rows = to_float(test.images), torch.arange(24)
    ranks = rank(maps["test"].take(rows), rows)
    seeds = draws.seeds_of("0 f_fidelity", rows)
    right, expected = (given(images).argmax(1) == test.targets).float(), {}
    for sign, side in enumerate(("explanation", "rest")):
        answers = []
        for sample in range(4):
            gone = dropped(ranks, 0.5, side, draws.fold(seeds, 2 * sample + sign), alpha=0.5, beta=0.3)
            answers.append((given(images * ~gone[:, None]).argmax(1) == test.targets).float())
        expected[side] = (right - torch.stack(answers).mean(0)).numpy()
    found = probe(here).values
    np.testing.assert_allclose(found["plus"], expected["explanation"], atol=1e-6)
    np.testing.assert_allclose(found["minus"], expected["rest"], atol=1e-6)


@pytest.mark.parametrize("max_batch", [1, 3, 1000])
def test_the_row_budget_changes_nothing_but_rounding(maps, max_batch):
    given, ticks = seeded(eight_filters).eval(), []
    here = fitted_case(splits(), maps, once=untuned(given))
    probe = FineTune(0.5, Call(call=f"{__name__}.noise"), (), "pixel", 4, 0.5, 0.3, 1, 1.0)
    one, other = (
        probe(each).values
        for each in (here, fitted_case(splits(), maps, once=untuned(given), max_batch=max_batch, advance=ticks.append))
    )
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=1e-5)
    assert sum(ticks) == probe.cost({"test": 24}, None)


def noise(images, removed, *, seeds):
    return draws.uniform(seeds, tuple(images.shape[1:]))


def test_no_explanation_costs_nothing_and_the_ends_need_no_map():
    given = seeded(eight_filters).eval()
    here = fitted_case(splits(), once=untuned(given))
    probe = metric("f_fidelity", {"samples": 2}).probes(Point(0.0, 0, MEAN, (), "pixel"))["holes"]
    assert not probe.needs.maps
    found = probe(here).values
    assert np.abs(found["plus"]).max() == 0
    assert np.abs(found["probability_plus"]).max() < 1e-6
    assert np.abs(found["probability_minus"]).max() > 0


# F-Fidelity: the fine-tuning


class Spy(nn.Module):
    """Notes the images it is trained on; its start shows that it goes on from given weights."""

    def __init__(self, notes):
        super().__init__()
        self.notes, self.fc = notes, nn.Linear(3, 4)

    def forward(self, images):
        if self.training:
            self.notes.append((images * 255).round().byte())
        return self.fc(images.mean((2, 3)))


def test_it_is_fine_tuned_from_the_given_weights_on_images_with_new_holes_each_epoch():
    data, notes, made = splits(), [], []

    def once(name, what, make):
        made.append((name, what))
        return make()

    given = Spy([])
    choices = TrainingSettings(epochs=50, batch_size=40, stop={"loss": 1e9})  # whose end is not that of fine-tuning
    here = fitted_case(data, build=lambda: Spy(notes), given_network=given, given_training=choices, once=once)
    tuned = fine_tuned(here, BLACK, beta=0.25, epochs=2, rate=1e-3)
    assert torch.allclose(tuned.fc.weight, given.fc.weight, atol=1e-5)  # the rate is a thousandth
    assert not torch.equal(tuned.fc.weight, given.fc.weight)
    assert not tuned.training
    assert len(notes) == 2
    whole = {each.numpy().tobytes(): each for each in data["train"].images}
    holes = []
    for epoch in notes:
        black = (epoch == 0).all(1)
        assert (black.flatten(1).sum(1) == 64).all()  # a quarter of 16 x 16; no pixel of the data is black
        holes.append(sorted(each.numpy().tobytes() for each in black))
    assert holes[0] != holes[1]
    assert len(whole) == 40
    fine_tuned(here, BLACK, beta=0.5, epochs=2, rate=1e-3)
    assert made[0][0] == "f_fidelity"
    assert made[0][1] != made[1][1]


class Brightness(nn.Module):
    """Light or dark, told by the mean with a threshold halfway."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1, 2)
        self.fc.weight.data, self.fc.bias.data = torch.tensor([[-10.0], [10.0]]), torch.tensor([5.0, -5.0])

    def forward(self, images):
        return self.fc(images.mean((1, 2, 3))[:, None])


def test_fine_tuning_makes_it_bear_holes():
    """Black holes make every image dark; the tuned threshold is that of images with holes."""
    targets = torch.arange(60) % 2
    grey = (100 + 60 * targets)[:, None, None, None].expand(60, 3, 8, 8).byte()
    data = {"train": Split(grey, targets), "test": Split(grey[:20], targets[:20])}
    fit = TrainingSettings(epochs=1, batch_size=10, optimizer={"call": "torch.optim.Adam", "kwargs": {"lr": 1.0}})
    here = fitted_case(data, build=Brightness, given_network=Brightness(), given_training=fit)
    tuned = fine_tuned(here, BLACK, beta=0.5, epochs=20, rate=0.1)
    holed = Perturb(Erasure("random", 0.5, BLACK))
    right = [holed(fitted_case(data, given_network=each)).values["accuracy"].mean() for each in (here.network, tuned)]
    assert right == [0.5, 1.0]


def test_what_f_fidelity_cannot_do_is_one_clear_error():
    for settings, said in (
        ({"samples": 0}, "samples 0"),
        ({"alpha": 0.0}, "alpha 0.0"),
        ({"beta": 1.5}, "beta 1.5"),
        ({"rate": 0.0}, "rate 0.0"),
    ):
        with pytest.raises(ValueError, match=words(said)):
            metric("f_fidelity", settings)
    here = fitted_case({"test": splits()["test"]})
    with pytest.raises(ValueError, match=words("train split")):
        fine_tuned(here, BLACK, beta=0.1, epochs=1, rate=0.1)
    tree = {
        "out": "run",
        "data": "efface.data.patches.patches",
        "model": NETWORK,
        "attribution_methods": [{"name": "random", "method": "efface.methods.control.random"}],
        "metrics": ["f_fidelity"],
    }
    with pytest.raises(ValueError, match=words("metrics.f_fidelity fit")):
        check(tree, Path("study.yml"))


# Mask leak


def shape_reader():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        Spread(),
        nn.Linear(48, 4),
    )


class Spread(nn.Module):
    """Mean, greatest and standard deviation of each channel: what a shape is like, wherever it is."""

    def forward(self, features):
        flat = features.flatten(2)
        return torch.cat([flat.mean(2), flat.amax(2), flat.std(2)], 1)


@pytest.mark.long
@pytest.mark.parametrize("leaky", [True, False])
def test_outlines_leak_where_the_shape_is_the_class_and_nowhere_else(tmp_path, leaky):
    data = patches(n_train=160, n_test=80, size=16, leaky=leaky)
    maps = {name: stored_maps(tmp_path, split.masks.float()) for name, split in data.items()}
    fit = TrainingSettings(epochs=12, batch_size=16, optimizer={"call": "torch.optim.Adam", "kwargs": {"lr": 1e-2}})
    here = fitted_case(data, maps, build=shape_reader, given_network=None, given_training=fit)
    leak = metric("mask_leak")
    area = float(data["test"].masks[0].float().mean())
    scores = {name: probe(here) for name, probe in leak.probes(Point(area, 0, MEAN, (), "pixel")).items()}
    values = leak.value(scores)
    assert {each.shape for each in values.values()} == {(80,)}
    found = {name: each.mean() for name, each in values.items()}
    assert found["accuracy"] - found["leak"] == pytest.approx(0.25)  # chance: four classes, equally often
    assert found["leak"] > 0.35 if leaky else abs(found["leak"]) < 0.1


def test_a_mask_needs_no_fill_and_an_even_one_no_map():
    leak = metric("mask_leak")
    assert leak.probes(Point(0.3, 0, MEAN, (), "pixel")) == leak.probes(Point(0.3, 0, BLUR, (), "pixel"))
    for end in (0.0, 1.0):
        ends = leak.probes(Point(end, 1, MEAN, (), "feature"))
        assert ends["mask"] == ends["blank"] == leak.probes(Point(0.4, 1, MEAN, (), "pixel"))["blank"]
        assert not ends["mask"].needs.maps


# Imputation detectability


def test_balanced_accuracy_and_area_by_hand():
    logits = torch.tensor([[[3.0, 1.0, -1.0, -2.0]], [[0.5, 0.5, 0.5, 0.5]], [[-4.0, -3.0, -2.0, -1.0]]])
    gone = torch.tensor([[[True, False, True, False]], [[True, False, False, False]], [[False, False, False, True]]])
    balanced, area = detection(logits, gone)
    assert balanced.tolist() == [0.5, 0.5, 0.5]
    assert area.tolist() == [0.75, 0.5, 1.0]  # pairs in the right order, ties half


@pytest.mark.parametrize("masks", ["random", "method"])
def test_a_foreign_colour_is_found_and_the_images_own_pixels_are_not(tmp_path, masks):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(20, 256, (24, 3, 12, 12), generator=generator, dtype=torch.uint8)
    data = {"test": Split(images, torch.arange(24) % 4)}
    order = "random" if masks == "random" else "most_first"
    maps = {"test": stored_maps(tmp_path, torch.randn(24, 12, 12, generator=generator))}
    here = fitted_case(data, maps, given_training=None)
    seen, hidden = (
        Detect(Erasure(order, 0.3, imputer), 8, 2, 25)(here).values
        for imputer in (BLACK, Call(call=f"{__name__}.alike"))
    )
    assert seen["balanced_accuracy"].mean() > 0.95
    assert seen["area"].mean() > 0.99
    assert abs(hidden["area"].mean() - 0.5) < 0.05
    assert abs(hidden["balanced_accuracy"].mean() - 0.5) < 0.05


def alike(images, removed, *, seeds):
    """Noise of the same law as the images of the test above."""
    return (20 + draws.uniform(seeds, tuple(images.shape[1:])) * 236).floor() / 255


def test_detection_is_the_same_at_any_row_budget_and_progress_adds_up():
    data = {"test": splits()["test"]}
    ticks, probe = [], Detect(Erasure("random", 0.3, BLUR), 4, 1, 2)
    one = probe(fitted_case(data, given_training=None, max_batch=1)).values
    other = probe(fitted_case(data, given_training=None, max_batch=64, advance=ticks.append)).values
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=1e-5)
    assert sum(ticks) == probe.cost({"test": 24}, None)
    assert not probe.needs.maps
    even = Detect(Erasure("random", 1.0, BLUR), 4, 1, 2)(fitted_case(data, given_training=None)).values
    assert set(even["area"].tolist()) == {0.5}


def test_what_detectability_cannot_do_is_one_clear_error():
    with pytest.raises(ValueError, match=words("masks all")):
        metric("imputation_detectability", {"masks": "all"})
    with pytest.raises(ValueError, match=words("imputation_detectability epochs 0")):
        metric("imputation_detectability", {"epochs": 0})
    with pytest.raises(ValueError, match=words("2 test images")):
        Detect(Erasure("random", 0.3, BLUR), 4, 1, 1)(
            fitted_case(
                {"test": Split(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1).long())}, given_training=None
            )
        )


# Through a study


@pytest.mark.long
def test_all_three_in_a_study(tmp_path):
    tree = {
        "out": str(tmp_path / "run"),
        "data": {"call": "efface.data.patches.patches", "kwargs": {"n_train": 24, "n_test": 12, "size": 16}},
        "model": NETWORK,
        "fit": {"epochs": 2, "batch_size": 8, "crop": 1},
        "attribution_methods": [
            {"name": "random", "method": "efface.methods.control.random"},
            {"name": "true", "method": "efface.methods.control.true_mask"},
        ],
        "metrics": [
            {"name": "f_fidelity", "kwargs": {"samples": 2, "epochs": 1, "fractions": [0.2, 0.8]}},
            {"name": "mask_leak", "kwargs": {"fractions": [0.2], "repeats": 1}},
            {"name": "imputation_detectability", "kwargs": {"epochs": 1, "width": 2, "fractions": [0.5]}},
        ],
        "executor": "efface.execute.serial",
    }
    study = checked(tmp_path, tree)
    train(study)
    assert extract(study) == []
    run = Run(study)
    assert measure_missing(planned_run(run)) == []
    found = {(each.metric, each.score, each.method): each for each in planned_run(run).curves}
    assert all(np.isfinite(each.values).all() for each in found.values())
    assert found["f_fidelity", "difference", "true"].at == (0.2, 0.8)
    assert len(list((run.folder / "kept").glob("f_fidelity-*.pt"))) == 1  # fine-tuned once
    found_by = [found["imputation_detectability", "area", each].values for each in ("true", "random")]
    np.testing.assert_array_equal(*found_by)  # random masks: no map has a part in it
    assert found["mask_leak", "leak", "true"].values.shape == (1, 2)
    assert found["mask_leak", "leak", "true"].values[0, 0] == 0.0


METHODS = [
    {"name": "random", "method": "efface.methods.control.random"},
    {"name": "true", "method": "efface.methods.control.true_mask"},
]


def measured(folder, **changes):
    """The curves of a study of its own folder, by metric, score and method."""
    tree = {
        "out": str(folder / "run"),
        "data": {"call": "efface.data.patches.patches", "kwargs": {"n_train": 24, "n_test": 12, "size": 16}},
        "model": NETWORK,
        "fit": {"epochs": 2, "batch_size": 8},
        "attribution_methods": METHODS,
        "executor": "efface.execute.serial",
    }
    folder.mkdir()
    study = checked(folder, tree | changes)
    train(study)
    assert extract(study) == []
    run = Run(study)
    assert measure_missing(planned_run(run)) == []
    return {(each.metric, each.score, each.method): each for each in planned_run(run).curves}


@pytest.mark.long
def test_a_network_that_probes_share_is_the_same_with_any_executor(tmp_path):
    metrics = [{"name": "f_fidelity", "kwargs": {"samples": 2, "epochs": 1, "fractions": [0.2, 0.8]}}]
    both = {"call": "efface.execute.processes", "kwargs": {"workers": 2}}
    serial = measured(tmp_path / "serial", metrics=metrics)
    parallel = measured(tmp_path / "processes", metrics=metrics, executor=both)
    assert serial.keys() == parallel.keys()
    for key, curve in serial.items():
        np.testing.assert_array_equal(curve.values, parallel[key].values)
    assert len(list((tmp_path / "processes" / "run" / "kept").glob("f_fidelity-*.pt"))) == 1
    assert np.ptp(serial["f_fidelity", "probability_difference", "true"].values) > 0


@pytest.mark.long
def test_diffroar_of_random_is_0_within_its_interval_and_that_of_the_true_map_above(tmp_path):
    found = measured(
        tmp_path / "study",
        data={"call": "efface.data.patches.patches", "kwargs": {"n_train": 128, "n_test": 128, "size": 16}},
        model={"call": "efface.models.resnet.resnet8", "kwargs": {"num_classes": 4}},
        fit={
            "epochs": 6,
            "batch_size": 16,
            "optimizer": {"call": "torch.optim.Adam", "kwargs": {"lr": 1e-2}},
        },
        metrics=[{"name": "diffroar", "kwargs": {"fractions": [0.5], "repeats": 4}}],
    )
    by = {name: interval(found["diffroar", "accuracy", name].values[:, 1]) for name in ("random", "true")}
    assert by["random"].n == 4
    assert by["random"].low <= 0 <= by["random"].high
    assert by["true"].low > max(0.05, by["random"].high)


def test_the_drop_of_morf_and_lerf_is_summed_up_as_aopc_and_their_probability_by_its_area(tmp_path):
    found = measured(tmp_path / "study", metrics=["morf", "lerf"], fractions=[0.1, 0.5])
    for name in ("morf", "lerf"):
        drop, probability = (found[name, score, "true"] for score in ("drop", "probability"))
        assert drop.at == (0.0, 0.1, 0.5)
        start = probability.values[:, :1]
        np.testing.assert_allclose(drop.values, start - probability.values, atol=1e-6)
        np.testing.assert_allclose(areas(drop), drop.values.mean(1), rtol=1e-6)
        np.testing.assert_allclose(
            areas(probability), np.trapezoid(probability.values, probability.at) / 0.5, rtol=1e-5
        )
        assert np.abs(areas(drop) - (start[:, 0] - areas(probability))).max() > 1e-4
