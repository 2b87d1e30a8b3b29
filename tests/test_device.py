"""On a pretended device, training, methods, metrics, fills, units and whole studies make no mistake of devices."""

import importlib.util
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from efface.__main__ import main
from efface.models.copied import copied_network
from numerics import area_erase, area_train, compare, inputs, names, plug_metrics
from numerics.files import part_differs
from small.messages import words
from small.pretended import DEVICE, pretended
from small.studies import MODULES
from small.tiers import LONG

TWO = words("same device two lazy:0 cpu")


@pytest.fixture
def device():
    with pretended() as found:
        yield found


# What a pretended device finds


def ones(**how):
    return torch.ones(3, **how)


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        pytest.param(lambda there: there + ones(), RuntimeError, TWO, id="two devices"),
        pytest.param(lambda there: ones() + there.sum(), RuntimeError, TWO, id="a number of the device"),
        pytest.param(lambda there: ones().add_(there), RuntimeError, TWO, id="in place on the CPU"),
        pytest.param(lambda there: there[0] + torch.zeros(2), RuntimeError, TWO, id="made without device="),
        pytest.param(lambda there: there.gather(0, torch.arange(2)), RuntimeError, TWO, id="arange without device="),
        pytest.param(lambda there: ones()[there > 0], RuntimeError, TWO, id="a mask of the device"),
        pytest.param(lambda there: torch.stack([there[0], torch.tensor(1.0)]), RuntimeError, TWO, id="a stack"),
        pytest.param(lambda there: there.numpy(), TypeError, words("lazy:0 numpy Tensor.cpu()"), id="numpy"),
        pytest.param(np.asarray, TypeError, words("lazy:0 numpy Tensor.cpu()"), id="asarray"),
        pytest.param(
            lambda there: torch.rand(2, device=DEVICE, generator=torch.Generator()),
            RuntimeError,
            words("generator 'lazy' 'cpu'"),
            id="a generator",
        ),
    ],
)
def test_a_mistake_is_found(device, mistake, error, message):
    with pytest.raises(error, match=message):
        mistake(ones(device=device))


@pytest.mark.parametrize(
    "right",
    [
        lambda there: there + torch.ones_like(there) * 2,
        lambda there: there + torch.zeros(2, 1, device=there.device) * torch.tensor(2.0),
        lambda there: there[torch.tensor([0, 2])],
        lambda there: there[[0, 2]],
        lambda there: there.quantile(0.5),
        lambda there: torch.tensor([1.0, 2.0, 3.0], device=there.device) + there.new_tensor([1.0, 0.0, 0.0]),
        lambda there: torch.ones(3).to(there.device).unsqueeze_(1) + there,
    ],
)
def test_what_a_gpu_takes_is_taken_and_gives_the_numbers_of_the_cpu(right):
    expected = right(ones())
    with pretended() as device:
        found = right(ones(device=device))
        assert found.device == device
        assert torch.equal(found.cpu(), expected)


def test_gradients_and_weights_are_on_the_device(device, tmp_path):
    network = torch.nn.Linear(3, 2).to(device)
    weight = network.weight.detach().cpu().clone()
    network(ones(device=device)).sum().backward()
    assert network.weight.grad.device == device
    torch.optim.SGD(network.parameters(), lr=0.5).step()
    assert torch.equal(network.weight.detach().cpu(), weight - 0.5)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    assert torch.load(tmp_path / "weights.pt", map_location=device)["weight"].device == device


def test_the_device_is_there_in_threads_and_gone_afterwards():
    found = []
    with pretended() as device:
        thread = threading.Thread(target=lambda: found.append(torch.ones(2).to(device)))
        thread.start()
        thread.join()
    assert found[0].device == device
    with pytest.raises(NotImplementedError):
        torch.ones(2, device=device)


# The parts of efface, whose numbers must be those of the golden files, which are of the CPU

MOVED = ("network", "second_network", "randomised", "images", "targets", "seeds", "masks", "normal", "maps", "stored")
KINDS = ("imputer", "post", "unit", "augmentation", "attack", "regularizer", "method", "metric", "generate")
SHORT = {
    "augmentation.rotation",
    "attack.pgd",
    "generate",
    "imputer.noisy_linear",
    "method.cp_lrp",
    "method.grad_cam",
    "method.gradient",
    "method.legrad",
    "method.PatternNet",
    "method.rise",
    "method.smooth_grad",
    "method.zennit.EpsilonPlus",
    "metric.insertion",
    "metric.max_sensitivity",
    "metric.pointing_game",
    "metric.randomisation",
    "metric.roar",
    "metric.sensitivity_n",
    "post.gaussian_blur",
    "regularizer.gradient_norm",
    "unit.patch",
}


def moved(make):
    return lambda *args, **kwargs: make(*args, **kwargs).to(DEVICE)


def as_placed(splits):
    """The splits as a run has them: the images on the device, everything else on the CPU."""
    return {name: replace(split, images=split.images.to(DEVICE)) for name, split in splits.items()}


@pytest.fixture
def on_device(monkeypatch, device):
    """What the golden outputs are computed from is on the device."""
    plain = importlib.util.module_from_spec(spec := importlib.util.find_spec("numerics.inputs"))
    spec.loader.exec_module(plain)  # its own functions stay on the CPU
    for name in MOVED:
        monkeypatch.setattr(inputs, name, moved(getattr(plain, name)))
    monkeypatch.setattr(inputs, "CPU", device)
    monkeypatch.setattr(inputs, "data", lambda *size: as_placed(plain.data(*size)))
    monkeypatch.setattr(inputs, "explain", moved(inputs.explain))
    monkeypatch.setattr(inputs, "sampled", plain.sampled)
    return plain


@pytest.fixture(scope="module")
def case():
    """The case of the metrics, on the CPU."""
    return plug_metrics.usual_case()


def on_both_tiers(name):
    return pytest.param(name, marks=() if name in SHORT else LONG)


@pytest.mark.parametrize("name", [on_both_tiers(each) for each in names() if each.partition(".")[0] in KINDS])
def test_numbers_on_the_device_are_those_of_the_cpu(case, on_device, monkeypatch, name):
    there = replace(
        case,
        given_network=copied_network(case.network).to(DEVICE),
        data=as_placed(case.data),
        mean=case.mean.to(DEVICE),
        device=DEVICE,
        cache={},
        explain=inputs.explain,
        samples=inputs.sampled,
    )
    monkeypatch.setattr(plug_metrics, "usual_case", lambda: there)
    assert compare([name]) == []


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=() if each in ("moved", "regularized") else LONG) for each in area_train.PLANS]
)
def test_a_training_on_the_device_is_that_of_the_cpu(on_device, name):
    settings = area_train.PLANS[name]
    build = inputs.Smooth if settings.regularizers else inputs.Net
    found = area_train.named(name, area_train.trained(settings, build=build))
    if settings.precision == "fp32":  # a pretended device rounds nothing to bf16
        assert part_differs("train", found) == []


@pytest.mark.long
def test_a_training_on_the_device_goes_on_from_its_checkpoint(on_device):
    found = area_train.resumed()
    assert part_differs("train", found) == []


@pytest.mark.parametrize("part", [pytest.param(area_erase.splits, marks=LONG), area_erase.scores])
def test_erased_images_on_the_device_are_those_of_the_cpu(on_device, part):
    assert part_differs("erase", part()) == []


# Whole studies


def study(**changes):
    """A study whose training has every option that a pretended device has."""
    return {
        "data": {
            "call": "efface.data.patches.patches",
            "kwargs": {"n_train": 48, "n_test": 24, "size": 16, "validation": 0.25},
        },
        "model": {"call": "resnet8", "kwargs": {"num_classes": 4}},
        "fit": {
            "epochs": 2,
            "batch_size": 16,
            "crop": 1,
            "flip": True,
            "keep": "best",
            "optimizer": {"call": "torch.optim.Adam", "kwargs": {"lr": 1e-2}},
            "schedule": {"call": "torch.optim.lr_scheduler.OneCycleLR", "kwargs": {"max_lr": 0.01}},
            "schedule_each": "step",
            "attack": {"call": "pgd", "kwargs": {"norm": "l2", "eps": 0.2, "steps": 1}},
            "augment": [{"call": "colour_jitter", "kwargs": {"brightness": 0.2}}],
        },
        "explain": "predicted",
        "attribution_methods": [
            {"name": "random", "method": "random", "draws": 2},
            {"name": "redrawn", "method": "random_resampled"},
            {"name": "smooth", "method": "smooth_grad", "kwargs": {"samples": 2}},
            {"name": "mine", "method": "mine.brightness"},
        ],
        "post": ["absolute", "channel_sum"],
        "metrics": ["morf", "roar"],
        "fractions": [0.3, 0.7],
        "repeats": 2,
        "max_batch": 16,
        "executor": "serial",
        "samples": {"count": 6, "steps": 2},
    } | changes


FEW = {
    "attribution_methods": [{"name": "random", "method": "random"}, {"name": "mine", "method": "mine.brightness"}],
    "fractions": [0.5],
    "repeats": 1,
}
OTHERS = {
    "metrics": [
        {"name": name, "metric": name, "kwargs": plug_metrics.SETTINGS.get(name, ({},))[0]}
        for name in (
            "data_randomisation",
            "gan_test",
            "insertion",
            "max_sensitivity",
            "randomisation",
            "relevance_rank",
        )
    ],
    "attribution_methods": [{"name": "random", "method": "random"}, {"name": "gradient", "method": "gradient"}],
    "fractions": [0.5],
    "second_network": {"model": {"call": "resnet8", "kwargs": {"num_classes": 4}}, "fit": {"epochs": 1}},
}


def run(folder, device, words, **changes):
    """The table of a study on a device."""
    name = str(device).partition(":")[0]
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump(study(out=str(folder / name), device=str(device), **changes)))
    for word in words:
        assert main([word, str(path)]) == 0
    return pd.read_csv(folder / name / "report" / "summary.csv")


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        pytest.param(("all",), FEW, id="short"),
        pytest.param(("check", "all"), {"memory_gb": 0}, id="images in a file", marks=LONG),
        pytest.param(("all",), OTHERS, id="other kinds of metrics", marks=LONG),
        pytest.param(("all", "samples", "visualize"), {"metrics": ["morf"]}, id="samples", marks=LONG),
    ],
)
def test_a_study_on_the_device_gives_the_page_of_the_cpu(tmp_path, monkeypatch, words, changes):
    (tmp_path / "mine.py").write_text(MODULES["mine"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    expected = run(tmp_path, "cpu", words, **changes)
    with pretended():
        found = run(tmp_path, DEVICE, words, **changes)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3, atol=1e-4)


def test_a_device_that_is_not_there_is_refused(tmp_path, capsys):
    path = tmp_path / "study.yml"
    methods = OTHERS["attribution_methods"]
    path.write_text(yaml.safe_dump(study(out=str(tmp_path / "run"), device="lazy:0", attribution_methods=methods)))
    assert main(["check", str(path)]) == 1
    assert "device: 'lazy:0' cannot be used here" in capsys.readouterr().err
