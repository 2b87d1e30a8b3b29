"""docs/coming-from.md: every row that names something of ours is run on tiny data, every other one says why not.

Run are methods, metrics, commands, functions and scripts, and of the keys all but these. Networks of more than `SMALL`
weights are built without memory for them and answer, but learn nothing; weights by name are looked up, not loaded; a
second network of full size is built; a device is a word that is read. What a command would do is read off `task --dry`,
and its stage is run on the tiny study. Data are read from files in their published format, a few images each, and an
epoch of the row's training is run on them. Counts are cut to a few.
"""

import ast
import copy
import importlib
import json
import math
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
import yaml
from jaxtyping import TypeCheckError
from torch import nn
from torchvision.datasets import CIFAR10, CIFAR100, MNIST, FashionMNIST

from efface.__main__ import main
from efface.base import draws
from efface.base.types import VECTOR_ONE
from efface.erase.batches import resident
from efface.erase.ranking import count
from efface.impute import kept_mean
from efface.methods import path
from efface.methods.contrast import contrast
from efface.methods.gradient import gradient
from efface.metrics import Point, metric
from efface.models.normalise import Normalise
from efface.models.preact import preact_resnet18
from efface.models.resnet import resnet8_wide
from efface.plug import source
from efface.plug.call import Call
from efface.plug.words import word_of
from efface.report.figure import Drawn
from efface.report.gallery import paint
from efface.store.arrays import read_rows
from efface.study import study as config
from efface.study.metric_entry import MetricEntry
from efface.training.attack import pgd
from efface.training.loop import TrainingRows, train
from efface.training.regularize import anti_score_matching
from small.cases import weighted_case
from small.studies import STUDY, write_study
from small.tiers import first_short
from test_data import published
from test_data import tree as folders
from test_vision import grey_files, mat_files, thousand

ROOT = Path(__file__).parents[2]
LIMIT = 3  # samples, steps and the like
SMALL = 4_000_000  # weights of a network that takes a training step here
TINY = STUDY | {
    "data": {"call": "efface.data.patches.patches", "kwargs": {"n_train": 16, "n_test": 4, "size": 16}},
    "model": {"call": "efface.models.resnet.resnet8", "kwargs": {"num_classes": 4}},
    "fit": {"epochs": 1, "batch_size": 8},
    "attribution_methods": [
        {"name": "random", "method": "efface.methods.control.random", "kwargs": {"per_channel": True}},
        {"name": "gradient", "method": "efface.methods.gradient.gradient"},
    ],
    "second_network": {"model": {"call": "efface.models.resnet.resnet8", "kwargs": {"num_classes": 4}}},
    "samples": {"count": 2, "steps": 2},
    "visualize": {"count": 2, "steps": 2},
    "metrics": ["morf"],
    "fractions": [0.5],
    "repeats": 1,
    "device": "cpu",
}
TWO_LAYERS = {"model": "net.network", "second_network": {"model": "net.network"}}
"""Quicker still, for what needs no layer by its name; beside the study, so that only the program can read it."""
SHORT = {
    "randomisation": {"points": 1},
    "convergence": {"points": 1, "pairs": 1},
    "gan_test": {"count": 2, "steps": 2},
    "data_randomisation": {"epochs": 1},
    "density_ratio": {"levels": [0.1], "samples": 1},
    "pixel_perturb": {"fractions": [0.5]},
    "diffid": {"fractions": [0.5]},
    "sensitivity_n": {"fractions": [0.5]},
    "degradation": {"size": 4, "patches": 2},
}
"""Settings that make a metric short where the page leaves them out."""
THEIRS = {
    "ROAR and LeRF": """
        install-nvidia-container-toolkit build-docker bash-docker _run-in-docker train-cls
        extract-attribution-maps evaluate-attribution-maps-roar roar lerf --config GT_IMAGE_NAME DATA_DIR
        PYTHON_FLAGS DOCKER_FLAGS desc outdir data.dataset data.split_ratio data.dataset_dir model.arch
        CIFAR10 ImageNet Food101 Birdsnap
        model.pretrained_weights model.constructor_args model.transformer scheduler optimizer loss.name
        batch_size nb_epochs extract_cams.model attribution_methods retrain_cls.model kar percentiles
        test_samples compute_gradcam ResNet8 ResNet8v2 ResNet10 ResNet18 ResNet34 ResNet50 ResNet101
        ResNet152
    """,
    "Score matching": """
        train.py evaluations.py plot_results.py --model-arch --dataset --regularizer
        --regularization-constant --model-name --eval --saliency-method --proxy-model-name
        --proxy-model-arch --num-samples --csv_path -m -pm resnet9 resnet18 resnet34 resnet50 vgg5 vgg7
        vgg11 vgg14 cifar10 cifar100 score anti gnorm visualize-saliency-and-samples compute-sample-quality
        pixel-perturb logit_gradient loss_gradient -s proxylogit_gradient proxyloss_gradient
        largest-insensitive smallest-sensitive SmoothGrad ActivationMaximization
        ScoreMatching AntiScoreMatching GradNormRegularizer num_samples std_dev tau thresh S sigma T
    """,
    "DiffROAR": """
        01_fig_in_real_data.ipynb 02_fig_in_synthetic_data.ipynb LossGrad LogitGrad LossGradientTimesInput
        LogitGradientTimesInput RandomAttribution get_attributions get_attribution_indices
        get_attribution_masked_data get_input_logit_gradients get_input_loss_gradients fit_model
        pgd_adv_fit_model L2_PGD_Attack Linf_PGD_Attack eps lr num_iter rand_eps restarts bounds loss_type
        minimal evaluate_attack RandomSignalCoordinate SemiRandomSignalCoordinate get_linear get_fcn basic
        robustness_repo basic_resize BlockMNIST SVHN FashionMNIST ImageNet-10 epoch_gap eval_attack min_loss
        max_updates max_epochs use_grayscale binarize y0 flatten_data get_imagenet_model pretrained augment_type
        living_9 mixed_13 geirhos_16 big_12 use_bn dropout
        input_dropout activation use_activation init
    """,
    "Re-calibration and LPI": """
        InputGrad IntGrad ExpGrad IG_SG IG_SQ IG_Uniform AGI FullGrad SmoothGrad Random LPI GradCAM
        -attr_method -model -dataset -metric -k -bg_size -est_method -exp_obj -batch_size -gpuid resnet34
        vgg16 MLP imagenet cifar10 cifar100 mnist DiffID visualize sensitivity_n sanity_check vanilla
        valid_ip valid_ref logit prob contrast post_process PreActResNet -num_centers -center_num -ref_num
        distribution_estimation.py
    """,
    "Pattern-guided integrated gradients": """
        --methods --batch_size --data_dir --val_size --n_patches --imagenet_download_key vanilla_grad
        pattern_vanilla_grad grad_x_input integrate_grad guided_backprop smooth_grad smooth_grad2 sg_ig
        var_grad exp_grad pattern_integrate_grad random degradation_test.py ig_test.py
        randomization_tests.py convergence_test.py run_examples.py patterns.py synthetic.ipynb
    """,
}
"""Every command, option, method and metric of each system, in words."""


@dataclass(frozen=True)
class Row:
    """A row of a table: its system, their word, what stands for it (`none`: nothing), what differs."""

    system: str
    theirs: str
    here: str
    differs: str

    @property
    def words(self):
        """What is in code style in the column `here`."""
        return re.findall(r"`([^`]+)`", self.here)


def rows():
    """Every row of the page, in order."""
    found = []
    for section in (ROOT / "docs" / "coming-from.md").read_text().split("\n## ")[1:]:
        system = section.splitlines()[0].split(":")[0]
        lines = [line for line in section.splitlines() if line.startswith("| ")]
        assert lines[0] == "| theirs | here | what differs |"
        for line in lines[1:]:
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            assert len(cells) == 3, f"expected three cells: {line}"
            found.append(Row(system, *cells))
    return found


ROWS = rows()
SYSTEMS = list(dict.fromkeys(row.system for row in ROWS))


def words(kind, system=None):
    """What the rows (of a system) name of a kind, each once."""
    found = (word for row in ROWS if system in (None, row.system) for word in row.words if kind_of(word) == kind)
    return list(dict.fromkeys(found))


def kind_of(word):
    """Command, script, method, metric, function or keys of a study."""
    if word.startswith("task "):
        return "command"
    if word.startswith("python "):
        return "script"
    if word.startswith("efface."):
        return "function"
    if word.startswith("{"):
        return "method" if "method" in yaml.safe_load(word) else "metric"
    return "keys"


def few(setting, name=""):
    """Counts become small and layers those of the tiny network, so that an entry runs at once; the rest stays."""
    if isinstance(setting, dict):
        return {key: few(each, key) for key, each in setting.items()}
    if isinstance(setting, list):
        return [few(each, name) for each in (setting[:2] if name in ("fractions", "eps") else setting)]
    if name == "layers" and isinstance(setting, str):
        return ["0"]
    return min(setting, LIMIT) if isinstance(setting, int) and not isinstance(setting, bool) else setting


def listed(found):
    """Entries of a list, each once; a name that stands for two things is a mistake of the page."""
    trees = [yaml.safe_load(word) for word in found]
    names = [tree["name"] for tree in trees]
    assert sorted(set(names)) == sorted(names)
    return trees


@pytest.fixture
def run_tiny(tmp_path, monkeypatch):
    """Writes the tiny study, changed, and runs a stage of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "path", [*sys.path])  # the program adds the folder
    # two thirds of the time would go into drawing, which tests/report/test_report.py looks at
    monkeypatch.setattr("efface.report.figure.inline", lambda *_: Drawn("", (0.0,) * 4, (0.0,) * 4))
    monkeypatch.setattr("efface.report.figure.sheet", lambda *_: {})

    def run(stage, *more, **changes):
        write_study(tmp_path, **TINY | changes)
        source.READ.clear()  # each run is a command of its own
        return main([stage, "study.yml", *more])

    return run


# The page itself


def test_there_are_five_systems_and_no_row_is_empty():
    assert len(SYSTEMS) == 5
    for row in ROWS:
        if row.here == "none":
            assert row.differs.endswith("."), f"{row.theirs}: nothing stands for it, and no sentence says why"
        else:
            assert row.words, f"{row.theirs}: neither `code` nor none"
            assert re.sub(r"`[^`]+`|[\s,]", "", row.here) == "", f"{row.theirs}: beside the code stands more"


def test_no_row_stands_twice():
    keys = [(row.system, row.theirs) for row in ROWS]
    assert sorted(set(keys)) == sorted(keys)


@pytest.mark.parametrize(("system", "theirs"), THEIRS.items())
def test_every_word_of_theirs_has_a_row(system, theirs):
    page = " ".join(row.theirs for row in ROWS if row.system == system)
    known = set(re.findall(r"-{0,2}[A-Za-z0-9_.]+(?:-[A-Za-z0-9_.]+)*", page))
    known |= {part for word in known for part in word.split(".")} | {word.rsplit("/")[-1] for word in page.split()}
    missing = [word for word in theirs.split() if word not in known and f"`{word}`" not in page]
    assert missing == []


# Entries: methods, metrics


@pytest.mark.parametrize("system", first_short(1, SYSTEMS))
def test_methods_give_maps(system, run_tiny, tmp_path):
    entries = [few(tree) for tree in listed(words("method", system))]
    assert entries
    written = write_study(tmp_path, **TINY | {"attribution_methods": listed(words("method", system))})
    assert config.read(written).map_names() == [each["name"] for each in entries]  # as the page has them, uncut
    assert run_tiny("extract", attribution_methods=entries) == 0
    extracted = {path.name.removesuffix("-test.h5") for path in (tmp_path / "run" / "maps").glob("*-test.h5")}
    assert extracted == {each["name"] for each in entries}


@pytest.mark.long
def test_metrics_give_numbers(run_tiny, tmp_path):
    entries = []
    for number, tree in enumerate(map(yaml.safe_load, words("metric"))):
        MetricEntry.model_validate(tree)  # as the page has it, uncut
        metric = tree.get("metric", tree["name"])
        kwargs = SHORT.get(metric.rpartition(".")[2], {}) | few(tree.get("kwargs", {}))
        entries.append({"name": f"m{number}", "metric": metric, "kwargs": kwargs})
    assert run_tiny("measure", metrics=entries, **TWO_LAYERS) == 0
    summary = (tmp_path / "run" / "report" / "summary.csv").read_text()
    assert [each for each in entries if not re.search(rf"^{each['name']},", summary, re.MULTILINE)] == []


# Keys of a study


@pytest.mark.parametrize("word", first_short(8, words("keys")))
def test_keys_are_read(word, tmp_path):
    overrides = shlex.split(word)
    found = config.read(write_study(tmp_path, **TINY), overrides)
    touched = {each.split("=")[0].split(".")[0] for each in overrides}
    assert touched <= {*config.Study.model_fields}
    if "model" in touched:
        network = builds(found.model)
        if sum(each.numel() for each in network.parameters()) <= SMALL:
            images = torch.randint(256, (4, *shape_of(found.model)), generator=torch.Generator().manual_seed(0))
            learns(found.model, images.byte(), torch.arange(4) % 2, found.fit)
    if "second" in touched and found.second_network.model.call != TINY["second_network"]["model"]["call"]:
        builds(found.second_network.model)


def builds(model):
    """A network is made, without memory for its weights, and answers; weights by name are those of torchvision."""
    kwargs = dict(model.kwargs)
    if (weights := kwargs.pop("weights", None)) is not None:
        assert weights in torchvision.models.get_model_weights(kwargs["name"]).__members__
        kwargs.pop("freeze", None)
    call = model.model_copy(update={"kwargs": kwargs})
    with torch.device("meta"):
        network = call().eval()
        assert network(torch.zeros(2, *shape_of(model))).shape[0] == 2
    return network


def shape_of(model):
    """Of an image that suits a network."""
    shapes = {"mnist_cnn": (1, 28, 28), "mlp": (1, 1, model.kwargs.get("in_features")), "load": (3, 299, 299)}
    return shapes.get(model.call.rpartition(".")[2], (3, 32, 32))


def learns(build, images, targets, settings):
    """One epoch of the training itself, augmentations and all, moves the network."""
    before = []

    def fresh():
        network = build()
        before.append(copy.deepcopy(network.state_dict()))
        return network

    padded = F.pad(images, [settings.crop] * 4)
    feed = resident(len(images), lambda rows: (padded[rows], None), lambda found, *_: found)
    short = settings.model_copy(update={"epochs": 1})
    fitted = train(
        fresh, feed, TrainingRows(torch.arange(len(images))), targets, short, seed=0, device=torch.device("cpu")
    )
    assert any(not torch.equal(value, before[0][name]) for name, value in fitted.network.state_dict().items())


ARCHIVES = {
    "cifar10": lambda root, patch: published(root, CIFAR10, patch),
    "cifar100": lambda root, patch: published(root, CIFAR100, patch),
    "mnist": lambda root, patch: grey_files(root, MNIST, patch),
    "fashion_mnist": lambda root, patch: grey_files(root, FashionMNIST, patch),
    "svhn": lambda root, patch: (root.mkdir(), mat_files(root, patch)),
    "imagenet10": lambda root, _: thousand(root),
    "image_folder": lambda root, _: folders(root, splits=(".",) if root.name == "val" else ("train", "val"), each=2),
    "blocks": lambda root, patch: grey_files(root, MNIST, patch),
}
"""What makes the files of a data set in their published format, a few images each."""
SHAPES = {"cifar10": (3, 32, 32), "cifar100": (3, 32, 32), "svhn": (3, 32, 32), "imagenet10": (3, 112, 112)}
SHAPES |= {"mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "blocks": (1, 56, 28)}
SHAPES |= {"one_signal": (1, 1, 10), "blockwise": (1, 1, 10)}


@pytest.mark.parametrize("word", first_short(2, (word for word in words("keys") if '"data={' in word)))
def test_data_are_read_from_files_in_the_published_format(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = shlex.split(word)
    whole = config.read(write_study(tmp_path, **TINY), overrides)
    found = whole.data
    name = found.call.rpartition(".")[2]
    if "root" in found.kwargs:
        ARCHIVES[name](Path(found.kwargs["root"]), monkeypatch)
    made = found()
    assert {*made} == ({"test"} if found.kwargs.get("root", "").endswith("/val") else {"train", "test"})
    channels, *sides = SHAPES.get(name, (3,))
    if name != "blockwise" and (size := found.kwargs.get("size")):  # of a block, there
        sides = [size, size]
    for split in made.values():
        assert len(split) > 0
        assert split.shape == (channels, *sides)
    split = made["test"]
    rows = torch.arange(min(4, len(split)))
    linear = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(split.shape), len(split.classes)))
    build = whole.model if any(each.startswith("model") for each in overrides) else lambda: linear
    learns(build, read_rows(split.images, rows), split.targets[rows], whole.fit)


@pytest.mark.long
def test_trainings_run(run_tiny, capsys):
    found = [word for word in words("keys") if {each[:3] for each in shlex.split(word)} <= {"fit", "see"}]
    assert len(found) > 10
    for word in found:
        more = [*shlex.split(word), "fit.epochs=1", "fit.batch_size=8"]
        assert run_tiny("train", *more, **TWO_LAYERS) == 0, f"{word}: {capsys.readouterr().err}"


WHOLE = ("data=", "model=", "model.", "device=", "second_network={")
"""Keys whose rows are run by the tests above; a device is there or not."""


@pytest.mark.long
def test_studies_run(run_tiny, tmp_path, capsys):
    """Each row that sets a study up, in as few runs as no two of them set one key twice in."""
    trained = [word for word in words("keys") if {each[:3] for each in shlex.split(word)} <= {"fit", "see"}]
    found = [word for word in words("keys") if word not in trained or "seed" in word]
    found = [word for word in found if not any(each.startswith(WHOLE) for each in shlex.split(word))]
    assert len(found) > 25
    groups = []
    for changes in map(cut, found):
        group = next((each for each in groups if not {*each} & {*changes}), None)
        groups.append(changes) if group is None else group.update(changes)
    assert len(groups) <= 8
    gan_test = {"name": "gan_test", "kwargs": SHORT["gan_test"]}
    assert run_tiny("train", **TWO_LAYERS) == 0
    (weights,) = (tmp_path / "run" / "models").glob("network-*.pt")
    weights = shutil.copy(weights, tmp_path)
    for changes in groups:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        for key in {"weights", "second_network.weights"} & {*changes}:
            (tmp_path / changes[key]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(weights, tmp_path / changes[key])
        overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
        for stage in ("all", "samples", "visualize"):
            done = run_tiny(stage, *overrides, metrics=["morf", "roar", gan_test], **TWO_LAYERS)
            assert done == 0, f"{overrides}: {capsys.readouterr().err}"
        did(tmp_path / changes.get("out", "run"), changes)


def cut(word):
    """The overrides of a row, by key, short as `few` makes the settings of an entry."""
    pairs = (each.split("=", 1) for each in shlex.split(word))
    return {key: few(yaml.safe_load(value), key.rpartition(".")[2]) for key, value in pairs}


def did(out, changes):
    """The files of a run show what its overrides asked for."""
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    roar = re.findall(r"^roar,.*$", (out / "report" / "summary.csv").read_text(), re.MULTILINE)
    methods = {line.split(",")[2] for line in roar}
    wanted = changes.get("attribution_methods", TINY["attribution_methods"])
    assert methods == {each["name"] for each in wanted}
    fractions = {float(line.split(",")[3]) for line in roar}
    assert fractions == {0.0, *changes.get("fractions", TINY["fractions"])}
    assert {line.split(",")[8] for line in roar} == {str(changes.get("repeats", TINY["repeats"]))}
    trained = {line["probe"].get("network", "first") for line in lines if line["probe"].get("probe") == "train"}
    given = {
        name for name, key in {"first": "weights", "second_network": "second_network.weights"}.items() if key in changes
    }
    assert trained == {"first", "second_network"} - given
    erased = [line for line in lines if line["probe"]["probe"] == "perturb" and line["probe"]["fraction"] > 0]
    assert erased
    for line in erased:
        asked = {key: line["probe"][key] for key in ("unit", "imputer", "post")}
        asked |= {key: line[key] for key in ("explain", "seed")}
        for key in {*asked} & {*changes}:
            assert plainly(asked[key]) == plainly(changes[key]), key
    with h5py.File(max(out.glob("samples/*.h5"), key=lambda path: path.stat().st_mtime_ns)) as file:
        assert len(file["images"]) == changes.get("samples.count", TINY["samples"]["count"])


def plainly(setting):
    """A call without settings is its name; true is the word that YAML reads as a truth."""
    if isinstance(setting, list):
        return [plainly(each) for each in setting]
    if isinstance(setting, dict):
        call = plainly(setting["call"])
        return {**setting, "call": call} if setting.get("kwargs") else call
    return "true" if setting is True else word_of(str(setting)) or setting


# Functions, commands


# Two classes, linear: what each function gives is known. All values of the images are far from 0 and 1.
WEIGHTS = torch.linspace(-1, 1, 24)[torch.randperm(24, generator=torch.Generator().manual_seed(0))].reshape(2, 12)
IMAGES = 0.45 + 0.1 * torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def linear():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
    network.load_state_dict({"1.weight": WEIGHTS})
    return network.eval()


def attacks(pgd, **settings):
    """As far as eps, straight to the other class; to the class of the targets if these are aimed at."""
    targets = torch.tensor([0, 1, 0, 1])
    aims = targets if settings.get("loss") == "targeted" else 1 - targets
    ways = (WEIGHTS[aims] - WEIGHTS[1 - aims]).reshape(IMAGES.shape)
    ways = ways / ways.flatten(1).norm(dim=1)[:, None, None, None]
    torch.testing.assert_close(pgd(linear(), IMAGES, targets, **settings), IMAGES + settings["eps"] * ways)


def gives_way(minimal, **settings):
    """Beyond the border between the classes, by a step at most."""
    logits = IMAGES.flatten(1) @ WEIGHTS.T
    targets = logits.argmax(1)
    far = logits.diff(dim=1).abs()[:, 0] / WEIGHTS.diff(dim=0).norm()
    found = minimal(linear(), IMAGES, targets, **settings)
    moved = (found - IMAGES).flatten(1).norm(dim=1)
    assert (linear()(found).argmax(1) == 1 - targets).all()
    assert (moved > far).all()
    assert (moved <= far + settings["step"] * 1.001).all()


def slopes(gradient, *, score):
    """Weights of the class; for the loss the other's less these, times the probability of the other."""
    targets = torch.tensor([0, 1, 0, 1])
    expected = WEIGHTS[targets]
    if score == "loss":
        odds = (IMAGES.flatten(1) @ WEIGHTS.T).softmax(1).gather(1, 1 - targets[:, None])
        expected = odds * (WEIGHTS[1 - targets] - expected)
    torch.testing.assert_close(gradient(linear(), IMAGES, targets, score=score), expected.reshape(IMAGES.shape))


def climbs(maximise, **settings):
    """To white where the class has a weight above 0, to black elsewhere; what it started from stays."""
    start, targets = IMAGES.clone(), torch.tensor([0, 1, 0, 1])
    found = maximise(linear(), targets, start, **settings)
    ends = (WEIGHTS[targets] > 0).float().reshape(IMAGES.shape)
    torch.testing.assert_close(found, ends, rtol=0, atol=0.01)
    assert torch.equal(start, IMAGES)


DOES = {
    "efface.training.attack.pgd": attacks,
    "efface.training.attack.minimal": gives_way,
    "efface.methods.gradient.gradient": slopes,
    "efface.training.generate.maximise": climbs,
}
"""What is true of each function of the page."""


def does(word):
    """Calls a function of the page with the settings that stand there."""
    call = ast.parse(word, mode="eval").body
    path = ast.unparse(call.func)
    function = getattr(importlib.import_module(path.rpartition(".")[0]), path.rpartition(".")[2])
    DOES[path](function, **{each.arg: ast.literal_eval(each.value) for each in call.keywords})


@pytest.mark.parametrize("word", first_short(8, words("function")))
def test_functions_do_what_they_say(word):
    does(word)


def test_a_function_of_the_page_with_wrong_settings_would_be_found():
    for wrong in ('norm="l7", eps=0.5', 'norm="l2", eps=-3', 'norm="l2", eps=0.5, loss="nonsense"'):
        with pytest.raises((ValueError, TypeCheckError)):  # the latter by the types that tests check
            does(f"efface.training.attack.pgd({wrong})")


@pytest.mark.long
def test_scripts_run(monkeypatch, capsys):
    (word,) = words("script")
    path, *more = shlex.split(word)[1:]
    monkeypatch.setattr(sys, "argv", [path, *more])
    threads = torch.get_num_threads()
    try:
        runpy.run_path(str(ROOT / path), run_name="__main__")
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().out
    for number in ("0.210561", "0.000694", "(1.634260, 6.365740)", "(2.091870, 5.908130)"):
        assert number in said, f"{number} is not in what {path} says"


@pytest.mark.long
def test_commands_run(run_tiny):
    wanted = {}
    for word in words("command"):
        done = dry(word)
        assert done.returncode == 0, f"{word}: {done.stderr}"
        called = shlex.split(done.stderr.split("] ", 1)[1])
        if called[0].startswith("docker/"):  # tests/docs/test_tooling.py runs these
            continue
        stage, path, more = called[1], called[2], called[3:]
        metrics = more.pop(1).split(",") if more[:1] == ["--metrics"] else []
        found = config.read(ROOT / path, more[1:] if metrics else more)
        if metrics:
            found.with_metrics(metrics)
        wanted.setdefault(stage, {}).update(dict.fromkeys(metrics))
    assert {*wanted} == {"train", "extract", "measure", "samples", "visualize", "report", "all"}
    del wanted["all"]  # it is the others
    metrics = [{"name": name, "kwargs": SHORT.get(name, {})} for name in wanted["measure"]]
    for stage, names in wanted.items():
        assert run_tiny(stage, *(["--metrics", ",".join(names)] if names else []), metrics=metrics, **TWO_LAYERS) == 0


def dry(word):
    """What task would run for a command of the page."""
    task = shutil.which("task") or str(Path(sys.executable).parent / "task")
    words = [task, "--dry", *shlex.split(word)[1:]]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


# What the page says of numbers: the originals' formulas, written from what their papers and systems compute


MEAN, STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def normalising():
    """A smooth network in double precision whose first layer normalises; that layer's numbers; what follows it."""
    torch.manual_seed(0)
    rest = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(384, 4)).double()
    mean, std = (torch.tensor(each, dtype=torch.float64)[:, None, None] for each in (MEAN, STD))
    return nn.Sequential(Normalise(MEAN, STD), rest).double().eval(), mean, std, rest


def slope_of(network, points, score):
    points = points.clone().requires_grad_()
    return torch.autograd.grad(score(network(points)).sum(), points)[0]


def photographs(count=3, **how):
    how = {"dtype": torch.float64, "generator": torch.Generator().manual_seed(1)} | how
    return torch.rand(count, 3, 8, 8, **how), torch.arange(count)


def own(targets):
    return lambda logits: logits.gather(1, targets[:, None])


def test_a_gradient_is_one_over_the_deviation_times_that_at_the_normalised_image():
    network, mean, std, rest = normalising()
    images, targets = photographs()
    theirs = slope_of(rest, (images - mean) / std, own(targets))
    torch.testing.assert_close(gradient(network, images, targets), theirs / std)
    assert not torch.allclose(gradient(network, images, targets), theirs)


@pytest.mark.parametrize("mode", ["none", "references", "points"])
@pytest.mark.parametrize("squared", [False, True])
def test_of_the_path_methods_only_ig_sq_without_recalibration_depends_on_the_deviations(mode, squared):
    network, mean, std, rest = normalising()
    images, targets = photographs()
    references, _ = photographs(12, generator=torch.Generator().manual_seed(2))
    references = references.unflatten(0, (3, 4))
    x, found, number = (images - mean) / std, torch.zeros_like(images), torch.zeros_like(images)
    for each in (references - mean).div(std).unbind(1):
        points = [(1 - a) * each + a * x for a in np.linspace(0, 1, 5)]  # the last is the image, bit for bit
        slopes = [slope_of(rest, point, own(targets)) / 5 for point in points]
        terms = [(x - each) * sum(slopes)]
        if mode == "points":
            terms = [(x - point) * slope for point, slope in zip(points, slopes, strict=True)]
        for term in terms:
            kept = torch.ones_like(term) if mode == "none" else (term >= 0).double()
            whole = (x - each) * sum(slopes) ** 2 if mode == "none" else term**2
            found += kept * (whole if squared else term)
            number += kept
    theirs = found / number.clamp(min=1)
    method = path.ig_squared if squared else path.ig_smooth
    ours = method(network, images, targets, references=references, steps=5, recalibrate=mode)
    torch.testing.assert_close(ours, theirs / std if squared and mode == "none" else theirs)


def test_integrated_gradients_are_a_mean_where_theirs_weigh_by_the_point():
    network, mean, std, rest = normalising()
    images, targets = photographs()
    x, black = (images - mean) / std, -mean / std
    slopes = [slope_of(rest, black + a * (x - black), own(targets)) for a in np.linspace(0, 1, 5)]
    ours = path.integrated_gradients(network, images, targets, steps=5, rule="closed")
    torch.testing.assert_close(ours, (x - black) * sum(slopes) / 5)
    theirs = sum(a * (x - black) * slope for a, slope in zip(np.linspace(0, 1, 5), slopes, strict=True))
    gained = (network(images) - network(torch.zeros_like(images))).gather(1, targets[:, None])[:, 0]
    far = [(each.sum((1, 2, 3)) - gained).abs().mean() for each in (ours, theirs)]
    assert far[0] < far[1]


def test_the_contrast_holds_its_weights_constant_and_the_log_probability_is_it_times_one_less_p():
    network, mean, std, rest = normalising()
    images, targets = photographs()
    x = (images - mean) / std

    def attached(logits):
        others = logits.scatter(1, targets[:, None], -torch.inf).softmax(1)
        return own(targets)(logits)[:, 0] - (others * logits).sum(1)

    def constant(logits):
        others = logits.scatter(1, targets[:, None], -torch.inf).softmax(1).detach()
        return own(targets)(logits)[:, 0] - (others * logits).sum(1)

    ours = contrast(network, images, targets, base=gradient, against="weighted")
    torch.testing.assert_close(ours, slope_of(rest, x, constant) / std)
    assert not torch.allclose(ours, slope_of(rest, x, attached) / std)
    probability = network(images).softmax(1).gather(1, targets[:, None])[:, :, None, None]
    torch.testing.assert_close(gradient(network, images, targets, score="log_probability"), (1 - probability) * ours)


@pytest.mark.parametrize(("samples", "steps"), [(10, 5), (20, 5), (12, 5), (6, 4), (1, 5), (10, 1)])
def test_there_a_reference_is_seen_at_as_many_points_as_the_page_says(samples, steps):
    """Pass j there takes reference j mod n and point j mod k; its gradient counts for reference j div k."""
    passes = range(samples * steps)
    seen = {j % samples: {i % steps for i in passes if i % samples == j % samples} for j in passes}
    assert {len(points) for points in seen.values()} == {steps // math.gcd(samples, steps)}
    assert (steps // math.gcd(samples, steps) == 1) == (samples % steps == 0)
    strangers = [j for j in passes if j % samples != j // steps]
    assert (strangers == []) == (samples == 1 or steps == 1)
    network, *_ = normalising()
    images, targets = photographs()
    references, _ = photographs(3 * samples, generator=torch.Generator().manual_seed(2))
    references = references.unflatten(0, (3, samples))
    grid = torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.ones(1, dtype=torch.float64)
    theirs = torch.zeros_like(images)
    for j in passes:
        start, a = references[:, j % samples], grid[j % steps]
        slope = slope_of(network, start + a * (images - start), own(targets))
        theirs += (images - references[:, j // steps]) * slope / (samples * steps)
    ours = path.ig_uniform(network, images, targets, references=references, steps=steps)
    assert torch.allclose(ours, theirs) == (strangers == [])


def test_the_row_budget_moves_float32_maps_of_a_smooth_network_by_less_than_1e_5():
    """What moves more is a rectifier at its kink: docs/methods.md."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.Softplus(), nn.Conv2d(16, 16, 3, padding=1), nn.Softplus()]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 4)).eval()
    images, targets = photographs(4, dtype=torch.float32)
    for mode in ("none", "references"):
        one, other = (
            path.ig_uniform(network, images, targets, seeds=torch.arange(4), recalibrate=mode, max_batch=max_batch)
            for max_batch in (1, 256)
        )
        far = (one - other).abs().flatten(1).amax(1) / other.abs().flatten(1).amax(1)
        assert far.median() < 1e-5


POST = (Call(call="efface.erase.post.absolute"), Call(call="efface.erase.post.channel_sum"))


@pytest.fixture
def erasing(tmp_path):
    """Images of 6 x 5 pixels, maps that are noise, a linear network; the metric's values of a point, by name."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 6, 5), generator=draw, dtype=torch.uint8)
    weights, maps = torch.randn(3, 6, 5, generator=draw) / 9, torch.randn(20, 3, 6, 5, generator=draw)
    here = weighted_case(tmp_path, images, maps, weights)

    def value(formula, fraction, post=()):
        settings = formula.defaults
        imputer = Call.model_validate(settings["imputer"])
        probes = formula.probes(Point(fraction, 0, imputer, post, settings.get("unit", "pixel")))
        return formula.value({name: probe(here) for name, probe in probes.items()})

    return here, images.double().numpy() / 255, maps.double().numpy(), weights.double().numpy(), value


def test_diffid_element_by_element_ranks_a_map_of_one_value_a_pixel(erasing):
    """A whole number of pixels goes, so no tie is left to the order of a sort."""
    _, images, maps, weights, value = erasing
    expected = []
    for image, one in zip(images, maps, strict=True):
        score = np.repeat(np.abs(one).sum(0)[None], 3, 0).ravel()
        score = (score - score.min()) / (score.max() - score.min() + 1e-10)
        probabilities = []
        for order in (np.argsort(score), np.argsort(-score)):
            gone = order[: int(90 * 0.3)]
            filled = image.ravel().copy()
            filled[gone] = np.round(np.delete(image.ravel(), gone).mean() * 255) / 255
            probabilities.append(1 / (1 + np.exp(-(filled * weights.ravel()).sum())))
        expected.append(probabilities[0] - probabilities[1])
    formula = metric("diffid", {"elementwise": True})
    np.testing.assert_allclose(value(formula, 0.3, POST)["probability"], expected, atol=1e-3)
    assert np.abs(value(formula, 0.3, POST[:1])["probability"] - expected).max() > 0.01  # each channel by itself
    (row,) = (row for row in ROWS if row.theirs == "`-metric DiffID`, element by element")
    kwargs = yaml.safe_load(row.words[0])["kwargs"]
    assert kwargs == {"elementwise": True, "post": [each.call.rpartition(".")[2] for each in POST]}


def test_diffid_takes_its_grey_in_0_to_1_where_theirs_is_one_normalised_number():
    images, _ = photographs(1, dtype=torch.float32)
    removed = images > 0.6
    mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    ours = kept_mean(images, removed, over="image")[0, :, 0, 0]
    theirs = (((images - mean) / std)[~removed].mean() * std + mean)[:, 0, 0]
    torch.testing.assert_close(ours, images[~removed].mean().expand(3))
    assert theirs.max() - theirs.min() > 0.05  # a colour


def test_completeness_is_a_mean_of_sizes_where_ig_test_lets_signs_cancel(erasing):
    _, images, maps, weights, value = erasing
    signed = maps.sum((1, 2, 3)) - ((images - 0.5) * weights).sum((1, 2, 3))
    imputer = {"call": "efface.impute.constant", "kwargs": {"value": 0.5}}
    formula = replace(metric("completeness"), defaults={"imputer": imputer})
    np.testing.assert_allclose(value(formula, 0.0)["gap"], np.abs(signed), rtol=1e-4)
    assert abs(signed.mean()) < np.abs(signed).mean()


def test_pixel_perturb_shows_128_of_255_where_theirs_is_a_half(erasing):
    here, *_, value = erasing
    seen = []
    here.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    value(metric("pixel_perturb"), 1.0, POST)
    assert torch.cat(seen).unique().tolist() == [pytest.approx(128 / 255)]


def test_pictures_scale_from_0_where_theirs_scale_from_the_minimum():
    values = 1 + np.random.default_rng(0).random((9, 9)) ** 3
    end = np.percentile(values, 99)
    from_zero, from_least = (np.clip((values - low) / (end - low), 0, 1) for low in (0, values.min()))
    ours = paint(values, percentile=99.0, signed=False)
    assert (ours == paint(from_zero, percentile=100.0, signed=False)).all()
    assert (ours != paint(from_least, percentile=100.0, signed=False)).any()
    assert (paint(from_least, percentile=100.0, signed=False).reshape(-1, 3) == (0, 0, 4)).all(1).any()  # black
    assert not (ours.reshape(-1, 3) == (0, 0, 4)).all(1).any()
    signed = values - 1.9  # most are negative: the percentile of the sizes is another than that of the values
    theirs = np.clip(signed / abs(np.percentile(signed, 99)), -1, 1)
    ours = np.clip(signed / np.percentile(np.abs(signed), 99), -1, 1)
    assert (paint(signed, percentile=99.0, signed=True) == paint(ours, percentile=100.0, signed=True)).all()
    assert np.abs(ours - theirs).max() > 0.1


def test_the_curve_of_anti_score_matching_is_not_cut_off_where_theirs_is():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Softplus(), nn.Linear(8, 4)).double()
    images, targets = photographs()
    outputs = network(images.requires_grad_())
    noise = torch.randn(1, *images.shape, dtype=torch.float64)
    h = (2 / 0.01**2) * (network(images + 0.01 * noise[0]) - outputs).gather(1, targets[:, None])[:, 0]
    threshold = float(h.detach().median())
    term = anti_score_matching(network, images, targets, outputs, sigma=0.01, threshold=threshold, noise=noise)
    torch.testing.assert_close(term.value, -h.clamp(max=threshold).mean())
    torch.testing.assert_close(term.parts["trace"], h.mean().detach())
    assert term.parts["trace"] > h.clamp(max=threshold).mean()  # theirs shows the latter


@pytest.mark.parametrize("clipped", [True, False])
def test_a_random_start_is_clipped_to_the_box_before_the_first_gradient(clipped):
    """Theirs takes the first gradient where the start is, and clips after the first step."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.Tanh(), nn.Linear(32, 4)).eval()
    images, targets = photographs(dtype=torch.float32)
    seeds, eps, step = torch.arange(3), 0.5, 0.125
    start = images + (2 * draws.uniform(draws.fold(seeds, 0), (3, 8, 8)) - 1) * eps
    assert ((start < 0) | (start > 1)).float().mean() > 0.1
    points = start.clamp(0, 1) if clipped else start
    for _ in range(3):
        slope = slope_of(network, points, lambda logits: F.cross_entropy(logits, targets, reduction="none"))
        change = (points - images + step * slope.sign()).clamp(-eps, eps)
        points = (images + change).clamp(0, 1)
    settings = {"norm": "linf", "eps": eps, "step": step, "steps": 3, "start": "random", "seeds": seeds}
    found = pgd(network, images, targets, **settings)
    assert torch.allclose(found, points, atol=1e-6) == clipped


def test_numbers_that_stand_on_the_page():
    page = " ".join(row.differs for row in ROWS)
    with torch.device("meta"):
        for made in (resnet8_wide(), preact_resnet18()):
            assert f"{sum(each.numel() for each in made.parameters()):,}" in page
    assert f"{0.45 * VECTOR_ONE / 255:.4f} here" in page
    assert count(0.7, 5) == 3  # floor; theirs rounds half to even
    assert round(0.7 * 5) == 4
