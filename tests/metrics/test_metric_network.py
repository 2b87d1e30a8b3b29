"""Metrics of the network: robust accuracy and adversarial distance on a linear network, whose distances are known."""

import numpy as np
import pytest
import torch
from torch import nn

from efface.base.types import Split
from efface.metrics import Point, metric
from efface.metrics.adversarial_distance import Moved
from efface.metrics.probes import Perturb
from efface.metrics.robust_accuracy import Attacked
from efface.metrics.shared.effects import seeds_for
from efface.stages.extract import extract
from efface.stages.page.report import write_report
from efface.stages.run.curves import planned_run
from efface.stages.run.run import Run
from efface.stages.work.measuring import measure_missing
from efface.study.study import check
from efface.training.attack import pgd
from small.cases import BLACK, C, H, N, W, known_case, values_of
from small.messages import words

COUNT = 40
DEFAULTS = {"norm": "linf", "step": None, "steps": 8, "start": "zero", "restarts": 1, "keep": "last"}
CONVOLUTION = {"activation": "Softplus", "padding": 0, "places": 4}


class Halves(nn.Module):
    """Two classes, far from the edges: an image's distance to the other is |margin| / |weights|, in the dual norm."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(C * H * W, 2)
        weight = torch.randn(C * H * W, generator=torch.Generator().manual_seed(5))
        self.fc.weight.data = torch.stack([weight, -weight])
        self.fc.bias.data.zero_()

    def forward(self, images):
        return self.fc((images - 0.5).flatten(1))


def pictures():
    generator = torch.Generator().manual_seed(6)
    images = torch.randint(100, 156, (COUNT, C, H, W), generator=generator, dtype=torch.uint8)
    right = Halves()(images.float() / 255).argmax(1)
    right[::5] = 1 - right[::5]  # some are wrong from the start
    return Split(images, right)


def robust(tmp_path, eps, **settings):
    here = known_case(tmp_path, torch.zeros(N, H, W), given_network=Halves(), data={"test": pictures()})
    return Attacked(eps, **(DEFAULTS | settings))(here).values["accuracy"]


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_robust_accuracy_of_a_linear_network_is_the_share_of_margins_above_eps(tmp_path, norm, dual):
    split, network = pictures(), Halves()
    with torch.no_grad():
        logits = network(split.images.float() / 255)
    margins = logits.gather(1, split.targets[:, None])[:, 0]  # the other logit is minus it
    distances = margins / network.fc.weight[0].detach().norm(p=dual)
    for eps in distances[distances > 0].quantile(torch.tensor([0.2, 0.5, 0.9])).tolist():
        expected = (distances > eps).numpy()
        assert 0 < expected.sum() < COUNT
        assert (robust(tmp_path, eps * 1.0001, norm=norm) == expected).all()


def test_it_is_the_accuracy_on_the_attacked_images_whatever_the_batch(tmp_path):
    settings = {"norm": "l2", "start": "random", "restarts": 2, "keep": "best", "steps": 3}
    probe, split = Attacked(0.1, **(DEFAULTS | settings)), pictures()
    found = []
    for max_batch in (7, 16, 100):
        here = known_case(
            tmp_path, torch.zeros(N, H, W), given_network=Halves(), data={"test": split}, max_batch=max_batch
        )
        found.append(probe(here).values["accuracy"])
    network, images = Halves(), split.images.float() / 255
    seeds = seeds_for(here, "attack", torch.arange(COUNT))
    worst = pgd(network, images, split.targets, eps=0.1, seeds=seeds, **settings)
    expected = (network(worst).argmax(1) == split.targets).numpy()
    assert all((each == expected).all() for each in found)


def test_it_reports_the_work_that_it_announces(tmp_path):
    here = known_case(tmp_path, torch.zeros(N, H, W))
    assert values_of(Attacked(0.1, **DEFAULTS), here)["accuracy"].dtype == bool


def test_at_0_it_is_the_probe_of_the_clean_images():
    formula = metric("robust_accuracy", {"eps": [0.5, 0, 0.25, 0.5]})
    assert formula.points_for((C, H, W)) == (0.0, 0.25, 0.5)
    clean = formula.probes(Point(0.0, 0, BLACK, (), "pixel"))["attacked"]
    assert clean == Point(0.5, 0, BLACK, (), "pixel").clean()
    assert isinstance(clean, Perturb)
    assert formula.probes(Point(0.25, 0, BLACK, (), "pixel"))["attacked"].eps == 0.25


def test_the_identity_holds_every_setting_and_the_attacks_version():
    first = Attacked(0.1, **DEFAULTS)
    others = [{"norm": "l2"}, {"step": 0.1}, {"steps": 9}, {"start": "random"}, {"keep": "best"}]
    identities = [str(first.identity()), str(Attacked(0.2, **DEFAULTS).identity())]
    identities += [str(Attacked(0.1, **(DEFAULTS | each)).identity()) for each in others]
    assert len(set(identities)) == len(identities)
    assert {"call": "attack.pgd", "version": 1}.items() <= first.identity()["attack"].items()


def test_the_loss_stands_in_the_identity_only_where_it_is_another():
    """So that the key of what was measured before there was a choice stays."""
    assert sorted(Attacked(0.1, **DEFAULTS).identity()["attack"]["kwargs"]) == sorted(["eps", *DEFAULTS])
    assert (
        Attacked(0.1, **DEFAULTS, loss="plusone_targeted").identity()["attack"]["kwargs"]["loss"] == "plusone_targeted"
    )


@pytest.mark.parametrize("loss", ["random_targeted", "plusone_targeted", "binary_hybrid"])
def test_every_loss_finds_the_same_with_two_classes_and_targeted_asks_for_python(tmp_path, loss):
    expected = robust(tmp_path, 0.01)
    assert 0 < expected.sum() < COUNT
    assert (robust(tmp_path, 0.01, loss=loss) == expected).all()
    with pytest.raises(ValueError, match=words("targets true")):
        metric("robust_accuracy", {"loss": "targeted"})


def test_the_loss_for_two_classes_is_refused_before_anything_is_measured():
    images = torch.rand(2, C, H, W)
    hybrid = Attacked(0.1, **DEFAULTS, loss="binary_hybrid")
    hybrid.check(Halves(), images)
    three = nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, 3))
    with pytest.raises(ValueError, match=words("loss binary_hybrid 3")):
        hybrid.check(three, images)
    Attacked(0.1, **DEFAULTS, loss="random_targeted").check(three, images)
    one = nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, 1))
    for probe in (Attacked(0.1, **DEFAULTS), Attacked(0.1, **DEFAULTS | {"start": "random"}), Moved("l2", 0.1, 3)):
        probe.check(three, images)
        with pytest.raises(ValueError, match=words("one class")):
            probe.check(one, images)


@pytest.mark.parametrize(("norm", "dual", "step"), [("linf", 1, 1 / 2550), ("l2", 2, 0.002)])
def test_adversarial_distance_of_a_linear_network_is_its_margin_and_less_than_a_step(tmp_path, norm, dual, step):
    split, network = pictures(), Halves()
    with torch.no_grad():
        logits = network(split.images.float() / 255)
    margins = logits.gather(1, split.targets[:, None])[:, 0].double()
    exact = (margins.clamp(min=0) / network.fc.weight[0].detach().norm(p=dual)).numpy()
    far = float(np.quantile(exact, 0.8))
    found = {}
    for max_batch in (7, 100):
        here = known_case(
            tmp_path, torch.zeros(N, H, W), given_network=Halves(), data={"test": split}, max_batch=max_batch
        )
        found[max_batch] = Moved(norm, step, int(far / step))(here).values
    distance, unchanged = found[7]["distance"], found[7]["unchanged"]
    assert np.allclose(distance, found[100]["distance"], rtol=1e-5, equal_nan=True)
    wrong = exact == 0
    assert 0 < wrong.sum() < COUNT
    assert (np.isnan(unchanged) == wrong).all()
    assert 0 < np.nansum(unchanged) < COUNT - wrong.sum()
    assert (np.isnan(distance) == (wrong | (unchanged == 1))).all()
    assert (exact[unchanged == 1] > far - 2 * step).all()
    changed = unchanged == 0
    assert (distance[changed] > 0).all()
    assert (distance[changed] >= exact[changed] * (1 - 1e-4)).all()
    assert (distance[changed] <= exact[changed] + step * 1.001).all()


def test_adversarial_distance_reports_the_work_that_it_announces_and_refuses_what_it_cannot_do(tmp_path):
    values_of(Moved("l2", 0.1, 3), known_case(tmp_path, torch.zeros(N, H, W)))
    assert (
        len(
            {
                str(Moved(*each).identity())
                for each in (("l2", 0.1, 3), ("linf", 0.1, 3), ("l2", 0.2, 3), ("l2", 0.1, 4))
            }
        )
        == 4
    )
    made = {
        norm: metric("adversarial_distance", {"norm": norm}).probes(Point(0.0, 0, BLACK, (), "pixel"))
        for norm in ("l2", "linf")
    }
    assert {norm: each["moved"].step for norm, each in made.items()} == {"l2": 0.05, "linf": 1 / 255}
    for settings, message in (
        ({"norm": "l1"}, "norm l1"),
        ({"step": 0.0}, "step 0"),
        ({"steps": 0}, "steps 0"),
    ):
        with pytest.raises(ValueError, match=words(message)):
            metric("adversarial_distance", settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": []}, "eps empty"),
        ({"eps": [0, -1]}, "eps -1"),
        ({"eps": [0, 8], "norm": "linf"}, "eps 8.0 linf"),
        ({"restarts": 3}, "restarts 3 start zero"),
        ({"norm": "l1"}, "norm l1"),
        ({"steps": 0}, "steps 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=words(message)):
        metric("robust_accuracy", settings)


@pytest.mark.long
def test_a_study_of_an_adversarially_trained_network(tmp_path):
    tree = {
        "out": str(tmp_path / "run"),
        "data": {"call": "efface.data.patches.patches", "kwargs": {"n_train": 40, "n_test": 8, "size": 16}},
        "model": {"call": "small.networks.one_convolution", "kwargs": CONVOLUTION},
        "attribution_methods": [{"name": "gradient", "method": "efface.methods.gradient.gradient"}],
        "post": ["efface.erase.post.absolute", "efface.erase.post.channel_sum"],
        "metrics": [
            "morf",
            {"name": "robust_accuracy", "kwargs": {"eps": [0, 0.1, 2], "steps": 3}},
            {
                "name": "far",
                "metric": "efface.metrics.adversarial_distance.adversarial_distance",
                "kwargs": {"steps": 3},
            },
            {
                "name": "nowhere",
                "metric": "efface.metrics.adversarial_distance.adversarial_distance",
                "kwargs": {"steps": 1, "step": 1e-9},
            },
        ],
        "fractions": [0.5],
        "fit": {
            "epochs": 1,
            "attack": {"call": "efface.training.attack.pgd", "kwargs": {"norm": "l2", "eps": 0.1, "steps": 2}},
            "regularizers": [{"call": "efface.training.regularize.gradient_norm", "preset": "paper"}],
        },
        "executor": "efface.execute.serial",
    }

    made = check(tree, tmp_path / "study.yml")
    assert extract(made) == []
    run = Run(made)
    assert measure_missing(planned_run(run)) == []
    (found,) = [each for each in planned_run(Run(made)).curves if each.metric == "robust_accuracy"]
    (clean,) = [each for each in planned_run(Run(made)).curves if (each.metric, each.score) == ("morf", "accuracy")]
    assert found.at == (0.0, 0.1, 2.0)
    assert np.array_equal(found.values[:, 0], clean.values[:, 0])
    assert (np.diff(found.values, axis=1) <= 0).all()
    by = {(each.metric, each.score): each for each in planned_run(Run(made)).curves}
    right = clean.values[:, 0] == 1
    nowhere = by["nowhere", "unchanged"].values[:, 0]  # a step of 1e-9 changes no class
    assert np.array_equal(nowhere, np.where(right, 1.0, np.nan), equal_nan=True)
    assert np.isnan(by["nowhere", "distance"].values).all()  # no mean of images that were never moved
    assert np.array_equal(np.isnan(by["far", "unchanged"].values[:, 0]), ~right)
    write_report(planned_run(run))
    page = (tmp_path / "run" / "report" / "report.html").read_text()
    assert page.count("unchanged") >= 2
    kinds = [row["probe"]["probe"] for row in run.results.records.values()]
    assert kinds.count("attacked") == 2
    (trained,) = [row for row in run.results.records.values() if row["probe"]["probe"] == "train"]
    assert set(trained["terms"]) == {
        "attacked_accuracy", "classification", "gradient_norm", "gradient_norm.squared_gradient",
    }  # fmt: skip
