"""A network with one logit, from `check` to the page: labels, metrics, trainings, a judge, redrawn networks."""

import csv

import pytest

from small.messages import names
from small.studies import efface, write_study

NET = """
import torch
from torch import nn

from efface.base.types import Split


def logit(squeezed: bool = False):
    parts = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(96, 1)]
    return nn.Sequential(*parts, *([nn.Flatten(0)] if squeezed else []))


def data(classes: int = 2):
    generator = torch.Generator().manual_seed(0)

    def split(n):
        targets = torch.arange(n) % classes
        images = torch.randint(0, 60, (n, 3, 16, 16), generator=generator, dtype=torch.uint8)
        images[targets == 1] += 120
        return Split(images, targets, tuple("abc"[:classes]))

    return {"train": split(48), "test": split(24)}
"""
METRICS = [
    *("morf", "roar", "randomisation", "efficient_randomisation", "random_logit", "completeness", "robust_accuracy"),
    *("convergence", "infidelity"),
]


def study(folder, **changes):
    usual = {"data": "binary.data", "model": "binary.logit", "outputs": "binary", "metrics": ["morf"], "repeats": 1}
    return write_study(folder, {"binary": NET}, **usual | changes)


@pytest.mark.long
def test_one_logit_is_trained_explained_measured_and_judged(tmp_path):
    study(
        tmp_path,
        metrics=METRICS,
        fractions=[0.5],
        attribution_methods=[
            {"name": "random", "method": "random"},
            {"name": "ig", "method": "integrated_gradients", "kwargs": {"steps": 4}},
            {"name": "theirs", "method": "gradient", "network": "second"},
        ],
        second_network={
            "model": {"call": "binary.logit", "kwargs": {"squeezed": True}},
            "outputs": "binary",
        },
    )
    result = efface(tmp_path, "all", "study.yml", "attribution_methods.theirs.name=lent", "metrics=[morf,roar]")
    assert result.code == 0, result.err
    methods = "attribution_methods=[{name: random, method: random}, {name: ig, method: integrated_gradients}]"
    result = efface(tmp_path, "all", "study.yml", methods, "fit.epochs=20")
    assert result.code == 0, result.err
    with (tmp_path / "run/report/summary.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["mean"]]
    assert {row["metric"] for row in rows} == {"accuracy", *METRICS}
    assert next(float(row["mean"]) for row in rows if row["metric"] == "accuracy") > 0.9
    (probability,) = [
        float(row["mean"])
        for row in rows
        if (row["metric"], row["score"], row["method"], float(row["fraction"])) == ("morf", "probability", "ig", 0)
    ]
    assert 0.5 <= probability <= 1  # the sigmoid of the logit, of the class that is predicted


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"outputs": None}, "model outputs: binary"),
        ({"data": {"call": "binary.data", "kwargs": {"classes": 3}}}, "2 classes 3 outputs: binary"),
        ({"model": "net.network"}, "model 4 numbers binary drop"),
    ],
)
def test_what_does_not_fit_one_logit_is_said_by_check(changes, said, tmp_path):
    study(tmp_path, **changes)
    result = efface(tmp_path, "check", "study.yml")
    assert result.code == 1
    assert names(result.err, said), result.err
