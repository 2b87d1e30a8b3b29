"""docs/coming-from.md: every row that names something of ours is run on tiny data, every other one says why not.

Run are methods, metrics, commands, functions and scripts, and of the keys all but these. Networks of more than `SMALL`
weights are built without memory for them and answer, but learn nothing; weights by name are looked up, not loaded; a
judge of full size is built; a device is a word that is read. What a command would do is read off `task --dry`, and its
stage is run on the tiny study. Data are read from files in their published format, a few images each, and an epoch of
the row's training is run on them. Counts are cut to a few.
"""

import ast
import copy
import importlib
import json
import math
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import pytest
import torch
import torch.nn.functional as F
import torchvision
import yaml
from jaxtyping import TypeCheckError
from torch import nn
from torchvision.datasets import CIFAR10, CIFAR100, MNIST, FashionMNIST

from efface.__main__ import main
from efface.erase.batches import resident
from efface.store.arrays import take
from efface.study import study as config
from efface.study.schema import MetricEntry
from efface.training.loop import Rows, fit
from small.tiers import first_short
from small_study import STUDY, write_study
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
    "judge": {"model": {"call": "efface.models.resnet.resnet8", "kwargs": {"num_classes": 4}}},
    "samples": {"count": 2, "steps": 2},
    "visualize": {"count": 2, "steps": 2},
    "metrics": ["morf"],
    "fractions": [0.5],
    "repeats": 1,
    "device": "cpu",
}
TWO_LAYERS = {"model": "net.network", "judge": {"model": "net.network"}}
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
def study(tmp_path, monkeypatch):
    """Writes the tiny study, changed, and runs a stage of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "path", [*sys.path])  # the program adds the folder
    # two thirds of the time would go into drawing, which tests/report/test_report.py looks at
    monkeypatch.setattr("efface.report.figure.inline", lambda *_: "")
    monkeypatch.setattr("efface.report.figure.sheet", lambda *_: {})

    def run(stage, *more, **changes):
        write_study(tmp_path, **TINY | changes)
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
def test_methods_give_maps(system, study, tmp_path):
    entries = [few(tree) for tree in listed(words("method", system))]
    assert entries
    written = write_study(tmp_path, **TINY | {"attribution_methods": listed(words("method", system))})
    assert config.read(written).map_names() == [each["name"] for each in entries]  # as the page has them, uncut
    assert study("extract", attribution_methods=entries) == 0
    extracted = {path.name.removesuffix("-test.h5") for path in (tmp_path / "run" / "maps").glob("*-test.h5")}
    assert extracted == {each["name"] for each in entries}


@pytest.mark.long
def test_metrics_give_numbers(study, tmp_path):
    entries = []
    for number, tree in enumerate(map(yaml.safe_load, words("metric"))):
        MetricEntry.model_validate(tree)  # as the page has it, uncut
        metric = tree.get("metric", tree["name"])
        kwargs = SHORT.get(metric.rpartition(".")[2], {}) | few(tree.get("kwargs", {}))
        entries.append({"name": f"m{number}", "metric": metric, "kwargs": kwargs})
    assert study("measure", metrics=entries, **TWO_LAYERS) == 0
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
    if "judge" in touched and found.judge.model.call != TINY["judge"]["model"]["call"]:
        builds(found.judge.model)


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
    fitted = fit(fresh, feed, Rows(torch.arange(len(images))), targets, short, seed=0, device=torch.device("cpu"))
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
    learns(build, take(split.images, rows), split.targets[rows], whole.fit)


@pytest.mark.long
def test_trainings_run(study, capsys):
    found = [word for word in words("keys") if {each[:3] for each in shlex.split(word)} <= {"fit", "see"}]
    assert len(found) > 10
    for word in found:
        more = [*shlex.split(word), "fit.epochs=1", "fit.batch_size=8"]
        assert study("train", *more, **TWO_LAYERS) == 0, f"{word}: {capsys.readouterr().err}"


WHOLE = ("data=", "model=", "model.", "device=", "judge={")
"""Keys whose rows are run by the tests above; a device is there or not."""


@pytest.mark.long
def test_studies_run(study, tmp_path, capsys):
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
    assert study("train", **TWO_LAYERS) == 0
    (weights,) = (tmp_path / "run" / "models").glob("network-*.pt")
    weights = shutil.copy(weights, tmp_path)
    for changes in groups:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        for key in {"weights", "judge.weights"} & {*changes}:
            (tmp_path / changes[key]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(weights, tmp_path / changes[key])
        overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
        for stage in ("all", "samples", "visualize"):
            done = study(stage, *overrides, metrics=["morf", "roar", gan_test], **TWO_LAYERS)
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
    given = {name for name, key in {"first": "weights", "judge": "judge.weights"}.items() if key in changes}
    assert trained == {"first", "judge"} - given
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
    """A call without settings is its dotted path; true is the word that YAML reads as a truth."""
    if isinstance(setting, list):
        return [plainly(each) for each in setting]
    if isinstance(setting, dict) and not setting.get("kwargs"):
        return setting["call"]
    return "true" if setting is True else setting


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


def slopes(gradient, *, of):
    """Weights of the class; for the loss the other's less these, times the probability of the other."""
    targets = torch.tensor([0, 1, 0, 1])
    expected = WEIGHTS[targets]
    if of == "loss":
        odds = (IMAGES.flatten(1) @ WEIGHTS.T).softmax(1).gather(1, 1 - targets[:, None])
        expected = odds * (WEIGHTS[1 - targets] - expected)
    torch.testing.assert_close(gradient(linear(), IMAGES, targets, of=of), expected.reshape(IMAGES.shape))


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
def test_commands_run(study):
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
        assert study(stage, *(["--metrics", ",".join(names)] if names else []), metrics=metrics, **TWO_LAYERS) == 0


def dry(word):
    """What task would run for a command of the page."""
    task = shutil.which("task") or str(Path(sys.executable).parent / "task")
    words = [task, "--dry", *shlex.split(word)[1:]]
    plain = os.environ | {"NO_COLOR": "1", "CI": ""}  # which colours what task says
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, env=plain)
