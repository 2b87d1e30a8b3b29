"""A network that runs out of memory above eight images: every stage halves its batches, and no number changes."""

import ast
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

import efface
from efface.__main__ import main
from efface.base.types import Split
from efface.metrics.shared.neighbours import Neighbours
from efface.stages.run import inputs
from efface.stages.work import measuring
from numerics import plug_metrics
from small.batches import noise_split
from small.tiers import LONG

ROOT = Path(efface.__file__).parent

NETWORK = '''
import torch
from torch import nn


class Narrow(nn.Sequential):
    """Runs out of memory above so many images; a training step needs as much again."""

    def __init__(self, most: int, in_training: int) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(96, 4)
        )
        self.most, self.in_training = most, in_training

    def forward(self, images):
        if len(images) > (self.in_training if self.training else self.most):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 is full.")
        return super().forward(images)
'''
METHODS = [
    {"name": "random", "method": "random"},
    {"name": "smooth", "method": "smooth_grad", "kwargs": {"samples": 3}},
]
MORE = [
    *METHODS,
    {"name": "pattern", "method": "PatternNet"},
    {"name": "rise", "method": "rise", "kwargs": {"samples": 12, "cells": 3}},
]
SHORT = ["morf", "max_sensitivity", "roar"]
OTHERS = [
    "adversarial_distance",
    "completeness",
    "data_randomisation",
    "degradation",
    "deletion",
    "density_ratio",
    "efficient_randomisation",
    "f_fidelity",
    "faithfulness_correlation",
    "gan_test",
    "idsds",
    "imputation_detectability",
    "infidelity",
    "insertion",
    "leakage",
    "lerf",
    "local_lipschitz",
    "magnitude_aligned",
    "monotonicity",
    "pixel_perturb",
    "random_logit",
    "r_oms",
    "randomisation",
    "road",
    "robust_accuracy",
    "saco",
    "sensitivity_n",
    "shapley",
    "single_deletion",
    "srg",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "narrow.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(measuring, "BATCHES", {})
    return tmp_path


def run(folder, name, words=("all",), *, most=8, in_training=16, methods=METHODS, metrics=("morf",), **changes):
    """The exit status of a study, and its table."""
    network = {"call": "narrow.Narrow", "kwargs": {"most": most, "in_training": in_training}}
    settings = plug_metrics.SETTINGS
    tree = {
        "out": str(folder / name),
        "data": {
            "call": "efface.data.patches.patches",
            "kwargs": {"n_train": 48, "n_test": 24, "size": 16, "validation": 0.25},
        },
        "model": network,
        "fit": {"epochs": 2, "batch_size": 16, "optimizer": {"call": "torch.optim.Adam", "kwargs": {"lr": 1e-2}}},
        "second_network": {"model": network, "fit": {"epochs": 1, "batch_size": 16}},
        "explain": "predicted",
        "attribution_methods": methods,
        "post": ["absolute", "channel_sum"],
        "metrics": [{"name": each, "metric": each, "kwargs": settings.get(each, ({},))[0]} for each in metrics],
        "fractions": [0.5],
        "repeats": 1,
        "max_batch": 64,
        "samples": {"count": 10, "steps": 2},
        "executor": "serial",
    }
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump(tree | changes))
    statuses = [main([word, str(path)]) for word in words]
    table = folder / name / "report" / "summary.csv"
    return max(statuses), pd.read_csv(table) if table.exists() else None


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "methods", "metrics"),
    [
        pytest.param(("all",), METHODS, SHORT, id="short"),
        pytest.param(("check", "all", "samples", "visualize"), MORE, ["morf"], id="stages", marks=LONG),
        pytest.param(("check", "all"), METHODS, OTHERS, id="other metrics", marks=LONG),
    ],
)
def test_every_stage_halves_its_batches_and_no_number_changes(folder, capsys, words, methods, metrics):
    status, expected = run(folder, "enough", words, most=10_000, methods=methods, metrics=metrics)
    assert (status, "out of memory" in capsys.readouterr().out) == (0, False)
    status, found = run(folder, "narrow", words, methods=methods, metrics=metrics)
    said = capsys.readouterr()
    assert status == 0, said.err
    assert "smooth: out of memory, so it goes on with max_batch=8" in said.out
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.long
def test_the_next_probe_of_a_kind_starts_with_what_fitted(folder, capsys):
    assert run(folder, "narrow", metrics=["max_sensitivity"])[0] == 0
    said = [
        line for line in capsys.readouterr().out.splitlines() if "max_sensitivity" in line and "out of memory" in line
    ]
    halved = [int(line.rpartition("=")[2]) for line in said]
    assert halved == [32, 16, 8]  # by the probe of the first method alone
    assert measuring.BATCHES[Neighbours] == 8


def test_a_training_step_says_what_helps(folder, capsys):
    status, _ = run(folder, "narrow", in_training=12)
    told = capsys.readouterr().err
    assert status == 1
    assert "fit.batch_size: the memory does not suffice for a training step of 16 images" in told
    assert "lower batch_size, which is another training" in told


@pytest.mark.parametrize("budget", [1e9, 0.0])
def test_images_that_do_not_fit_on_the_device_stay_in_a_file(tmp_path, monkeypatch, budget):
    def full(self, *_):
        raise torch.OutOfMemoryError("none left")

    split = noise_split(5, seed=1)
    monkeypatch.setattr(torch.Tensor, "to", full)
    placed = inputs.place_split(split, budget, torch.device("cpu"), tmp_path, "test")
    monkeypatch.undo()
    assert not isinstance(placed.images, torch.Tensor)
    assert torch.equal(placed.images.take(torch.arange(5)), split.images)
    again = inputs.place_split(Split(placed.images, split.targets), 1e9, torch.device("cpu"), tmp_path, "test")
    assert torch.equal(again.images, split.images)


FILES = {"models/torchvision.py", "models/huggingface.py", "models/weights.py", "models/timm.py"}
"""Modules whose handlers are around the reading of files, not around a pass."""
KEEPS_ON = {("models/fast_copy.py", "folded")}
"""Functions that do without what does not fit: the network itself gives the same answers as its copy."""


def test_no_handler_takes_a_lack_of_memory_for_a_fault():
    found = []
    for folder in ("erase", "impute", "methods", "metrics", "models", "training"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            tree = ast.parse(path.read_text())
            functions = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)]
            for function in functions:
                if name not in FILES and (name, function.name) not in KEEPS_ON:
                    found += [f"{name}: {function.name}" for each in ast.walk(function) if takes_it(each)]
    assert found == []


def takes_it(node):
    """Whether a `try` handles RuntimeError, of which OutOfMemoryError is one, and does not hand that on before."""
    if not isinstance(node, ast.Try):
        return False
    caught = [ast.unparse(each.type) if each.type else "" for each in node.handlers]
    runtime = [place for place, each in enumerate(caught) if "RuntimeError" in each]
    memory = [place for place, each in enumerate(caught) if each == "torch.OutOfMemoryError"]
    return bool(runtime) and not (memory and memory[0] < runtime[0])
