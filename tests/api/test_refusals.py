"""What a call from Python refuses is said in the words of the call: its arguments, not the keys of a YAML file."""

import re
import traceback

import numpy as np
import pytest
import torch
from torch import nn

import efface
from small.messages import names

IMAGES = torch.randint(0, 256, (12, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(12) % 3
TRAIN = (IMAGES, LABELS)
ONE = {"epochs": 1}
OF_YAML = re.compile(
    r"(?<![\w.])(attribution_methods|metrics\.\w|data\.|model\.kwargs)|'fit'|'train' split|the study|--\w|efface_given|"
    r"\{\w+: |outputs: \w|unit: \w|batched: |device=auto|evaluate: |/given/|num_classes="
)
"""Words of a study's file, of the command line, and of efface's own files."""


def network(last=None):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)]
    return nn.Sequential(*layers, *([last] if last else []))


def channels(model, images, targets):
    return images


def rows(model, images, targets):
    return images.mean((1, 2))


def nowhere(model, images, targets):
    return images.mean(1) * torch.nan


def two(model, images, targets):
    return {"a": images.mean(1), "b": images.mean(1)}


def few(model):
    return model


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.layer = nn.Parameter(torch.ones(3)), nn.Linear(192, 3)

    def forward(self, images):
        return self.layer(images.flatten(1)) * self.scale


def call(methods=("gradient",), metrics=("morf",), *, model=None, images=IMAGES, labels=LABELS, **settings):
    return efface.evaluate(model or network(), images, labels, methods, metrics, verbose=False, **settings)


MAPS = np.random.default_rng(0).random((12, 8, 8))
REFUSED = {
    "metrics: roar: train=(images, refit=": lambda: call(metrics=["roar"]),
    "metrics: kar: train=(images, refit= ": lambda: call(metrics=["kar"], train=TRAIN),
    "metrics: train=(images, refit=": lambda: call(metrics=["roar"], refit=ONE),
    "metrics: diffroar: train=(images": lambda: call(metrics=["diffroar"]),
    "methods: train=(images": lambda: call(["PatternAttribution"]),
    "model: 3 outputs, labels class 7": lambda: call(labels=LABELS + 5),
    "model: 3 outputs, labels of train class 9": lambda: call(metrics=["roar"], train=(IMAGES, LABELS + 7), refit=ONE),
    "images: 4 labels are below 0 row 0": lambda: call(labels=LABELS - 1),
    "train: 3 x 8 x 4 images 3 x 8 x 8": lambda: call(metrics=["roar"], train=(IMAGES[..., :4], LABELS), refit=ONE),
    "train: no images": lambda: call(metrics=["roar"], train=(IMAGES[:0], LABELS[:0]), refit=ONE),
    "train: labels are missing": lambda: call(metrics=["roar"], train=IMAGES, refit=ONE),
    "images: has no images": lambda: call(images=IMAGES[:0], labels=LABELS[:0]),
    "images: 12 images, 3 labels": lambda: call(labels=LABELS[:3]),
    "metrics: pointing_game: masks leave this metric out": lambda: call(metrics=["pointing_game"]),
    "metrics: gan_test: second_network=": lambda: call(metrics=["gan_test"]),
    "metrics: morf, channels: channel_sum unit='feature'": lambda: call({"channels": channels}, post=[]),
    "methods: rows: returned shape (2, 8) second argument image": lambda: call({"rows": rows}),
    "methods: nowhere: NaN": lambda: call({"nowhere": nowhere}),
    "methods: two: 'outputs': ['a', 'b']": lambda: call({"two": two}),
    "methods: few: few cannot be called (model, images, targets)": lambda: call({"few": few}),
    "methods: gradeint: gradient": lambda: call(["gradeint"]),
    "methods: ig: 'step' 'steps'": lambda: call({"ig": {"method": "integrated_gradients", "kwargs": {"step": 3}}}),
    "methods: ig: kwarg: 'kwargs'": lambda: call({"ig": {"method": "gradient", "kwarg": {}}}),
    "methods: g: second_network=": lambda: call({"g": {"method": "gradient", "network": "second"}}),
    "methods: m: 12 images 3 maps": lambda: call({"m": MAPS[:3]}),
    "methods: m: train= 'file':": lambda: call({"m": MAPS}, ["roar"], train=TRAIN, refit=ONE),
    "methods: g: layer 'nothere': 0, 1,": lambda: call({"g": {"method": "grad_cam", "kwargs": {"layer": "nothere"}}}),
    "metrics: morff: 'morf'": lambda: call(metrics=["morff"]),
    "metrics: morf: nothing: imputer, fractions,": lambda: call(metrics=[efface.metric("morf", nothing=3)]),
    "metrics: one metrics=['morf', 'lerf']": lambda: call(metrics=[]),
    "metrics: 'morf' twice": lambda: call(metrics=["morf", "morf"]),
    "fractoins: 'fractions'": lambda: call(fractoins=[0.5]),
    "imputer: word, {'call': ..., 'kwargs': {...}}": lambda: call(imputer=rows),
    "refit: {'epochs': 2,": lambda: call(metrics=["roar"], train=TRAIN, refit=3),
    "refit.epoch: 'epochs'": lambda: call(metrics=["roar"], train=TRAIN, refit={"epoch": 1}),
    "fit: refit={...}": lambda: call(fit=ONE),
    "fit: train=(images, model": lambda: call(model=network, fit=ONE),
    "model: layer '' (Scale) reset_parameters": lambda: call(metrics=["roar"], model=Scale(), train=TRAIN, refit=ONE),
    "model: Sequential outputs='probabilities'": lambda: call(model=network(nn.Softmax(1))),
    "model: <lambda> NoneType": lambda: call(model=lambda: None),
    "device: 'nothing' leave device out": lambda: call(device="nothing"),
    "decide: {'level': 0.05}": lambda: call(decide=3),
    "unit token: {'call': 'patch', 'kwargs': {'size': 16}}": lambda: call(unit="token"),
    "data: no setting": lambda: call(data=3),
    "compare: a: no folder": lambda: efface.compare(a="nowhere", b="nowhere"),
    "compare: two or more": lambda: efface.compare(a="nowhere"),
    "metric: 3 int": lambda: efface.metric(3),
    "methods: nowhere: NaN ": lambda: efface.maps(network(), IMAGES, LABELS, {"nowhere": nowhere}, verbose=False),
}


@pytest.mark.parametrize("said", REFUSED)
def test_a_refusal_speaks_of_the_call(said):
    with pytest.raises(ValueError, match=": ") as error:
        REFUSED[said]()
    text = str(error.value)
    assert names(re.sub(r"[,=(]", r"\g<0> ", text), re.sub(r"[,=(]", r"\g<0> ", said)), text
    assert not OF_YAML.search(text), text


def failing(*_):
    return {}["nothing"]


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, images):
        return self.layer(failing(images))


OF_THE_CALLER = {
    "method": lambda: call({"mine": lambda model, images, targets: failing()}),
    "network": lambda: call(model=Failing()),
    "maker": lambda: call(model=failing),
    "maps": lambda: efface.maps(network(), IMAGES, LABELS, {"mine": lambda m, i, t: failing()}, verbose=False),
}


@pytest.mark.parametrize("refused", [*list(REFUSED.values())[::8], *OF_THE_CALLER.values()])
def test_a_refusal_is_one_error_without_a_chain_of_causes(refused):
    with pytest.raises(ValueError, match=": ") as error:
        refused()
    assert "".join(traceback.format_exception(error.value)).count("Traceback") == 1


@pytest.mark.parametrize("what", OF_THE_CALLER)
def test_a_failure_of_the_callers_own_code_is_told_with_its_file_and_line(what):
    with pytest.raises(ValueError, match="KeyError: 'nothing'") as error:
        OF_THE_CALLER[what]()
    assert f"test_refusals.py:{failing.__code__.co_firstlineno + 1})" in str(error.value)


def test_cautions_of_a_call_speak_of_the_call():
    result = call(labels=torch.zeros(12, dtype=torch.int64))
    page = result.report().read_text()
    cautions = page[page.index('<section id="answer">') : page.index('<section id="verdict">')]
    assert "mean=[0, 0, 0] and std=[1, 1, 1]" in cautions
    assert "give each of the labels the number of its output" in cautions
    assert not re.search("image_folder|in the study|mean: ", cautions)
