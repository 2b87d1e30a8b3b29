"""Metrics of the network: robust accuracy on a linear network, whose distance to the other class is known."""

import numpy as np
import pytest
import torch
from torch import nn

from efface.attack import pgd
from efface.config import check
from efface.metrics import Point, metric
from efface.metrics._effects import seeds_for
from efface.metrics.robust_accuracy import Attacked
from efface.probes import Perturb
from efface.stages.curves import curves
from efface.stages.measure import measure
from efface.stages.pipeline import extract
from efface.stages.run import Run
from efface.types import Split
from test_metric_faithfulness import BLACK, C, H, N, W, case, values

COUNT = 40
DEFAULTS = {"norm": "linf", "step": None, "steps": 8, "start": "zero", "restarts": 1, "keep": "last"}


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
    here = case(tmp_path, torch.zeros(N, H, W), network=Halves(), data={"test": pictures()})
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
    for rows in (7, 16, 100):
        here = case(tmp_path, torch.zeros(N, H, W), network=Halves(), data={"test": split}, rows=rows)
        found.append(probe(here).values["accuracy"])
    network, images = Halves(), split.images.float() / 255
    seeds = seeds_for(here, "attack", torch.arange(COUNT))
    worst = pgd(network, images, split.targets, eps=0.1, seeds=seeds, **settings)
    expected = (network(worst).argmax(1) == split.targets).numpy()
    assert all((each == expected).all() for each in found)


def test_it_reports_the_work_that_it_announces(tmp_path):
    here = case(tmp_path, torch.zeros(N, H, W))
    assert values(Attacked(0.1, **DEFAULTS), here)["accuracy"].dtype == bool


def test_at_0_it_is_the_probe_of_the_clean_images():
    formula = metric("robust_accuracy", {"eps": [0.5, 0, 0.25, 0.5]})
    assert formula.at((C, H, W)) == (0.0, 0.25, 0.5)
    clean = formula.probes(Point(0.0, 0, BLACK, (), "pixel"))["attacked"]
    assert clean == Point(0.5, 0, BLACK, (), "pixel").clean()
    assert isinstance(clean, Perturb)
    assert formula.probes(Point(0.25, 0, BLACK, (), "pixel"))["attacked"].eps == 0.25


def test_the_identity_holds_every_setting_and_the_attacks_source():
    first = Attacked(0.1, **DEFAULTS)
    others = [{"norm": "l2"}, {"step": 0.1}, {"steps": 9}, {"start": "random"}, {"keep": "best"}]
    identities = [str(first.identity()), str(Attacked(0.2, **DEFAULTS).identity())]
    identities += [str(Attacked(0.1, **(DEFAULTS | each)).identity()) for each in others]
    assert len(set(identities)) == len(identities)
    assert first.identity()["attack"]["source"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": []}, "eps is empty"),
        ({"eps": [0, -1]}, "eps is -1"),
        ({"eps": [0, 8], "norm": "linf"}, "eps is 8.0, but norm is linf"),
        ({"restarts": 3}, "restarts is 3, but start is 'zero'"),
        ({"norm": "l1"}, "norm is 'l1'"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        metric("robust_accuracy", settings)


def test_a_study_of_an_adversarially_trained_network(tmp_path):
    tree = {
        "out": str(tmp_path / "run"),
        "data": {"call": "efface.data.patches.patches", "kwargs": {"n_train": 40, "n_test": 8, "size": 16}},
        "model": {"call": "test_metric_network.network"},
        "attribution_methods": [{"name": "gradient", "method": "efface.methods.gradient.gradient"}],
        "post": ["efface.post.absolute", "efface.post.channel_sum"],
        "metrics": ["morf", {"name": "robust_accuracy", "kwargs": {"eps": [0, 0.1, 2], "steps": 3}}],
        "fractions": [0.5],
        "fit": {
            "epochs": 1,
            "attack": {"call": "efface.attack.pgd", "kwargs": {"norm": "l2", "eps": 0.1, "steps": 2}},
            "regularizers": [{"call": "efface.regularize.gradient_norm", "preset": "paper"}],
        },
        "executor": "efface.execute.serial",
    }

    made = check(tree, tmp_path / "study.yml")
    assert extract(made) == []
    run = Run(made)
    assert measure(run) == []
    (found,) = [each for each in curves(Run(made)) if each.metric == "robust_accuracy"]
    (clean,) = [each for each in curves(Run(made)) if (each.metric, each.score) == ("morf", "accuracy")]
    assert found.at == (0.0, 0.1, 2.0)
    assert np.array_equal(found.values[:, 0], clean.values[:, 0])
    assert (np.diff(found.values, axis=1) <= 0).all()
    kinds = [row["probe"]["probe"] for row in run.results.rows.values()]
    assert kinds.count("attacked") == 2
    (trained,) = [row for row in run.results.rows.values() if row["probe"]["probe"] == "train"]
    assert set(trained["terms"]) == {
        "attacked_accuracy", "classification", "gradient_norm", "gradient_norm.squared_gradient",
    }  # fmt: skip


def network(classes: int = 4):
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96, classes)
    )
