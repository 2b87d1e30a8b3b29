"""Configurations of the ROAR reference system become studies: every key, exact numbers, nothing lost or overwritten."""

import copy
import re
import textwrap
from pathlib import Path

import pytest
import torch
import yaml

from efface.__main__ import main
from efface.plug.call import Call
from efface.study.convert import converted, read_old
from efface.study.convert.networks import RESNETS
from efface.study.convert.old import LERF, MODEL, ROAR, SECTIONS, TOP, TRAINING
from efface.study.study import check, read
from efface.study.yaml_file import InvalidStudyError
from efface.study.yaml_text import read_yaml
from small.messages import names
from test_data import tree as photographs

ROOT = Path(__file__).parents[2]
STEP = {"name": "torch.optim.lr_scheduler.StepLR", "step_size": 10, "gamma": 0.5}
ADAM = {"name": "torch.optim.Adam", "lr": 1e-3, "weight_decay": 1e-4}
LOSS = {"name": "torch.nn.CrossEntropyLoss"}
MODEL_ = {
    "arch": "src.models.classification.PytorchCifarResnet.ResNet8",
    "pretrained_weights": None,
    "constructor_args": None,
    "transformer": None,
}
GRAD_CAM = {
    "name": "gradcam",
    "method": "src.attribution_methods.gradcam.compute_gradcam",
    "kwargs": {"saliency_layer": "layer3.0.relu"},
}
TRAIN = {"scheduler": STEP, "optimizer": ADAM, "loss": LOSS, "batch_size": 256, "nb_epochs": 50}
OLD_ROAR = {
    "desc": "ROAR of a ResNet8",
    "outdir": "runs/cifar10_resnet8",
    "data": {"dataset": "CIFAR10", "split_ratio": 0.875, "dataset_dir": "data/CIFAR10"},
    "train_cls": {"model": MODEL_, **TRAIN},
    "extract_cams": {
        "model": MODEL_ | {"pretrained_weights": "runs/cifar10_resnet8/train_cls/best_model.pth"},
        "attribution_methods": [GRAD_CAM],
    },
    "retrain_cls": {
        "model": MODEL_,
        "attribution_methods": [GRAD_CAM],
        "metrics": "roar",
        "percentiles": [10, 30, 50, 70, 90],
        **TRAIN,
    },
}
OLD_LERF = {
    "desc": "LeRF of a ResNet-50",
    "outdir": "runs/lerf",
    "data": {"dataset": "ImageNet", "dataset_dir": "data/ILSVRC2012/"},
    LERF: {
        "model": MODEL_ | {"arch": "torchvision.models.resnet50", "constructor_args": {"pretrained": True}},
        "attribution_methods": [GRAD_CAM | {"kwargs": {"saliency_layer": "layer4"}}],
        "percentiles": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        "test_samples": 2000,
    },
}
AS_THEY_WRITE_IT = """
outdir: &out 'runs/x'
data: {dataset: CIFAR10, split_ratio: 0.875, dataset_dir: 'data/CIFAR10'}
train_cls:
    model: &MODEL {arch: src.models.classification.PytorchCifarResnet.ResNet8, pretrained_weights: ~}
    scheduler: &S {name: torch.optim.lr_scheduler.StepLR, step_size: 10, gamma: 0.5}
    optimizer: &O {name: torch.optim.Adam, lr: 1.0e-3, betas: !!python/tuple [0.8, 0.9]}
    loss: &L {name: torch.nn.CrossEntropyLoss}
    batch_size: &B 256
    nb_epochs: &N 50
extract_cams:
    model:
        <<: *MODEL
        pretrained_weights: !!python/object/apply:os.path.join [*out, 'train_cls/best_model.pth']
    attribution_methods: &M
        - {name: gradcam, method: src.attribution_methods.gradcam.compute_gradcam, kwargs: {saliency_layer: layer3}}
retrain_cls:
    model: *MODEL
    attribution_methods: *M
    metrics: 'kar'
    percentiles: [10, 90]
    scheduler: *S
    optimizer: *O
    loss: *L
    batch_size: *B
    nb_epochs: *N
"""


def changed(tree, *changes):
    """The tree with dotted keys replaced, given as pairs; `...` removes one."""
    tree = copy.deepcopy(tree)
    for key, value in changes:
        *parents, last = key.split(".")
        place = tree
        for part in parents:
            place = place[part]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return tree


def write(folder, tree, name="old.yml"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree, sort_keys=False))
    return path


def study_of(folder, tree):
    """The one study of a configuration, checked, and what each key became."""
    (old,) = read_old([write(folder, tree)])
    (made,) = converted(old, Path("configs"))
    return check(read_yaml(made.text), folder / made.name), made


def problems(folder, tree):
    path = write(folder, tree)
    with pytest.raises(InvalidStudyError) as error:
        [converted(old, Path("configs")) for old in read_old([path])]
    return str(error.value).splitlines()


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command of efface in an empty folder; its status, and what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.syspath_prepend(str(tmp_path))

    def command(*words):
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return command


# The numbers


def test_each_number_of_the_roar_file_is_that_of_the_study(tmp_path):
    study, _ = study_of(tmp_path, OLD_ROAR)
    assert str(study.out) == "runs/cifar10_resnet8"
    assert study.data.model_dump() == {
        "call": "efface.data.cifar.cifar10",
        "kwargs": {"root": "data/CIFAR10", "validation": 0.125},
    }
    assert study.model.call == "efface.models.resnet.resnet8_wide"
    assert study.model.kwargs["mean"] == [0.4914, 0.4822, 0.4465]
    assert study.model.kwargs["std"] == [0.2470, 0.2435, 0.2616]
    fit = study.fit
    assert (fit.epochs, fit.batch_size, fit.crop, fit.flip, fit.keep) == (50, 256, 4, True, "best")
    assert fit.optimizer == Call(call="torch.optim.Adam", kwargs={"lr": 1e-3, "weight_decay": 1e-4})
    assert fit.schedule == Call(call="torch.optim.lr_scheduler.StepLR", kwargs={"step_size": 10, "gamma": 0.5})
    assert (fit.schedule_each, fit.loss) == ("epoch", Call(call="torch.nn.CrossEntropyLoss"))
    assert (study.refit, study.weights, study.explain, study.unit) == (None, None, "predicted", "pixel")
    random, grad_cam = study.attribution_methods
    assert (random.name, random.method) == ("random", "efface.methods.control.random")
    assert (grad_cam.name, grad_cam.method) == ("gradcam", "efface.methods.cam.grad_cam")
    assert grad_cam.kwargs == {"layer": "layer3.0.relu"}
    assert [call.call for call in study.post] == ["efface.erase.post.channel_max"]
    assert study.imputer.call == "efface.impute.channel_mean"
    assert [metric.name for metric in study.metrics] == ["roar"]
    assert (study.fractions, study.repeats) == ((0.1, 0.3, 0.5, 0.7, 0.9), 3)


def test_each_number_of_the_lerf_file_is_that_of_the_study(tmp_path):
    study, _ = study_of(tmp_path, OLD_LERF)
    kwargs = {"root": "data/ILSVRC2012/val", "size": 224, "resize": 256, "test_limit": 2000}
    assert (study.data.call, study.data.kwargs) == ("efface.data.folder.image_folder", kwargs)
    assert study.model.kwargs == {"name": "resnet50", "weights": "IMAGENET1K_V1"}
    assert (study.fit, study.explain, study.unit) == (None, "predicted", "pixel")
    assert study.attribution_methods[1].kwargs == {"layer": "layer4"}
    assert [call.call for call in study.post] == ["efface.erase.post.channel_max"]
    assert study.imputer == Call(call="efface.impute.constant", kwargs={"value": [0.485, 0.456, 0.406]})
    assert [metric.name for metric in study.metrics] == ["lerf", "morf"]
    assert study.fractions == tuple(number / 100 for number in range(1, 11))


def test_the_study_here_for_the_same_file_has_the_same_training_and_network(tmp_path):
    study, _ = study_of(tmp_path, OLD_ROAR)
    here = read(ROOT / "configs" / "cifar10_resnet8.yml")
    assert study.model == here.model
    assert study.fit == here.fit
    assert (study.fractions, study.explain, study.imputer) == (here.fractions, here.explain, here.imputer)


def test_tags_anchors_and_merges_are_read_as_they_are_written(tmp_path):
    study, made = study_of(tmp_path, AS_THEY_WRITE_IT)
    assert study.fit.optimizer.kwargs == {"lr": 1e-3, "betas": [0.8, 0.9]}
    assert (study.weights, study.refit) == (None, None)
    assert [metric.name for metric in study.metrics] == ["kar"]
    (line,) = (line for line in made.lines if line.key == "extract_cams.model.pretrained_weights")
    assert line.value == "runs/x/train_cls/best_model.pth"


# Every key


def leaves(tree, before=""):
    for name, value in tree.items():
        if isinstance(value, dict) and name not in ("scheduler", "optimizer", "loss", "constructor_args"):
            yield from leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"


@pytest.mark.parametrize("tree", [OLD_ROAR, OLD_LERF], ids=["roar", "lerf"])
def test_each_key_has_one_line_in_the_order_of_the_file(tree, tmp_path):
    _, made = study_of(tmp_path, tree)
    keys = [re.sub(r"(attribution_methods)\.gradcam$", r"\1", line.key) for line in made.lines]
    assert keys == list(leaves(tree))


def test_the_keys_that_are_known_are_those_of_the_page_on_the_reference_system():
    section = (ROOT / "docs" / "coming-from.md").read_text().split("\n## ")[1]
    theirs = " ".join(line.split(" | ")[0] for line in section.splitlines() if line.startswith("| "))
    said = set(re.findall(r"[A-Za-z_]+", theirs))
    known = {*TOP, *MODEL, *TRAINING, *(key for keys in SECTIONS.values() for key in keys)} - {"data", "model"}
    assert known <= said


@pytest.mark.parametrize("arch", RESNETS)
def test_each_network_is_there_with_the_layer_that_their_file_names(arch, tmp_path):
    path = f"src.models.classification.PytorchCifarResnet.{arch}"
    study, _ = study_of(tmp_path, changed(OLD_ROAR, *((f"{name}.model.arch", path) for name in ROAR)))
    with torch.device("meta"):
        layers = dict(study.model().named_modules())
    assert "layer3.0.relu" in layers
    assert study.model.kwargs["mean"] == [0.4914, 0.4822, 0.4465]


def test_a_network_of_torchvision_keeps_its_settings(tmp_path):
    args = {"pretrained": False, "num_classes": 10}
    tree = changed(
        OLD_ROAR,
        *((f"{name}.model.arch", "torchvision.models.vgg16") for name in ROAR),
        *((f"{name}.model.constructor_args", args) for name in ROAR),
    )
    study, _ = study_of(tmp_path, tree)
    assert study.model.kwargs["name"] == "vgg16"
    assert study.model.kwargs["num_classes"] == 10
    assert "weights" not in study.model.kwargs
    assert study.model.kwargs["mean"] == [0.4914, 0.4822, 0.4465]  # the colours of the data


def test_weights_of_torchvision_are_those_that_their_argument_meant(tmp_path):
    for args, weights in (
        ({"pretrained": True}, "IMAGENET1K_V1"),
        ({"weights": "ResNet50_Weights.IMAGENET1K_V2"}, "IMAGENET1K_V2"),
        ({"pretrained": False}, None),
        (None, None),
    ):
        study, made = study_of(tmp_path, changed(OLD_LERF, (f"{LERF}.model.constructor_args", args)))
        assert study.model.kwargs.get("weights") == weights
        (line,) = (line for line in made.lines if line.key.endswith("constructor_args"))
        assert (weights or "no weights" if args else "") in line.became


def test_a_retraining_with_settings_of_its_own_is_a_refit(tmp_path):
    sgd = {"name": "torch.optim.SGD", "lr": 0.1}
    changes = ("retrain_cls.nb_epochs", 7), ("retrain_cls.optimizer", sgd), ("retrain_cls.batch_size", 9)
    study, made = study_of(tmp_path, changed(OLD_ROAR, *changes, ("retrain_cls.scheduler", None)))
    assert (study.fit.epochs, study.refit.epochs) == (50, 7)
    assert study.refit.optimizer == Call(call="torch.optim.SGD", kwargs={"lr": 0.1})
    assert study.refit.schedule is None
    assert study.refit.batch_size == study.fit.batch_size == 256  # theirs ignores that of the retraining
    assert (study.refit.crop, study.refit.flip, study.refit.keep) == (4, True, "best")
    (line,) = (line for line in made.lines if line.key == "retrain_cls.batch_size")
    assert (line.became, "ignores" in line.why) == ("", True)


@pytest.mark.parametrize(
    ("key", "value", "weights"),
    [
        ("extract_cams.model.pretrained_weights", "elsewhere/net.pth", "elsewhere/net.pth"),
        ("extract_cams.model.pretrained_weights", "runs/cifar10_resnet8/./train_cls/best_model.pth", None),
        ("train_cls.model.pretrained_weights", "elsewhere/net.pth", None),
        ("retrain_cls.model.pretrained_weights", "elsewhere/net.pth", None),
    ],
)
def test_only_the_explained_network_is_read_from_a_file(key, value, weights, tmp_path):
    study, made = study_of(tmp_path, changed(OLD_ROAR, (key, value)))
    assert (str(study.weights) if study.weights else None) == weights
    (line,) = (line for line in made.lines if line.key == key)
    assert line.why


def test_percentiles_become_parts_of_one_in_order_and_zero_is_said(tmp_path):
    study, made = study_of(tmp_path, changed(OLD_ROAR, ("retrain_cls.percentiles", [90, 0, 7, 29.5, 7])))
    assert study.fractions == (0.07, 0.295, 0.9)
    (line,) = (line for line in made.lines if line.key == "retrain_cls.percentiles")
    assert "removes all pixels at 0" in line.why


@pytest.mark.parametrize(("asked", "limit"), [(500, 500), (10_000, None), (90_000, None)])
def test_lerf_on_cifar_takes_its_mean_colour_and_no_more_images_than_there_are(asked, limit, tmp_path):
    data = {"dataset": "CIFAR10", "split_ratio": 0.875, "dataset_dir": "data/CIFAR10"}
    tree = changed(OLD_LERF, ("data", data), (f"{LERF}.test_samples", asked), (f"{LERF}.model", MODEL_))
    study, _ = study_of(tmp_path, tree)
    assert study.imputer.kwargs["value"] == [0.4914, 0.4822, 0.4465]
    assert study.data.kwargs.get("test_limit") == limit
    assert "validation" not in study.data.kwargs


def test_a_file_with_both_makes_two_studies(tmp_path):
    (old,) = read_old([write(tmp_path, OLD_ROAR | {LERF: OLD_LERF[LERF] | {"model": MODEL_}})])
    roar, lerf = converted(old, Path("configs"))
    assert [(made.name, *made.commands) for made in (roar, lerf)] == [
        ("old.yml", "efface check configs/old.yml", "efface measure configs/old.yml --metrics roar"),
        (
            "old_lerf.yml",
            "efface check configs/old_lerf.yml",
            "efface measure configs/old_lerf.yml --metrics lerf,morf",
        ),
    ]
    for made in (roar, lerf):
        assert all(f"#   {command}\n" in made.text for command in made.commands)


def test_files_that_complete_one_another_make_one_study_as_the_whole_file_does(tmp_path):
    shared = {key: OLD_ROAR[key] for key in ("outdir", "data")}
    first = write(tmp_path, shared | {"extract_cams": OLD_ROAR["extract_cams"]}, "extract.yml")
    second = write(tmp_path, {key: OLD_ROAR[key] for key in ("train_cls", "retrain_cls")} | shared, "roar.yml")
    (old,) = read_old([first, second])
    (made,) = converted(old, Path("configs"))
    assert made.name == "extract.yml"
    assert made.paths == (first, second)
    parted, whole = check(read_yaml(made.text), first), study_of(tmp_path, OLD_ROAR)[0]
    assert parted == whole
    assert len(read_old([first, write(tmp_path, OLD_ROAR, "whole.yml"), write(tmp_path, OLD_LERF, "lerf.yml")])) == 3


def test_files_of_one_run_must_agree_and_keep_both_descriptions(tmp_path):
    shared = {key: OLD_ROAR[key] for key in ("outdir", "data")}
    parts = {key: OLD_ROAR[key] for key in ("train_cls", "retrain_cls")}
    first = write(tmp_path, {"desc": "maps", "extract_cams": OLD_ROAR["extract_cams"]} | shared, "extract.yml")
    second = write(tmp_path, {"desc": "retraining"} | shared | parts, "roar.yml")
    (old,) = read_old([first, second])
    assert converted(old, Path("configs"))[0].text.startswith("# maps retraining\n")
    write(tmp_path, shared | parts | {"outdir": "elsewhere"}, "roar.yml")
    with pytest.raises(InvalidStudyError, match=re.escape(f"{second}: outdir: is not that of {first}")):
        read_old([first, second])


def test_a_problem_of_several_files_names_the_file_that_has_the_key(tmp_path):
    shared = {key: OLD_ROAR[key] for key in ("outdir", "data")}
    first = write(tmp_path, shared | {"extract_cams": OLD_ROAR["extract_cams"]}, "extract.yml")
    bad = OLD_ROAR["retrain_cls"] | {"percentiles": "ten"}
    second = write(tmp_path, shared | {"train_cls": OLD_ROAR["train_cls"], "retrain_cls": bad}, "roar.yml")
    (old,) = read_old([first, second])
    with pytest.raises(InvalidStudyError, match=re.escape(f"{second}: retrain_cls.percentiles: is 'ten'")):
        converted(old, Path("configs"))


# What is wrong


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            [("train_cls.nb_epochs", ...), ("train_cls.nb_epoch", 5)],
            "train_cls.nb_epoch unknown did you mean nb_epochs",
        ),
        ([("data.split_ratio", ...), ("data.splitratio", 0.9)], "data.splitratio did you mean split_ratio"),
        ([("train_cls", ...), ("train_cl", {})], "train_cl did you mean train_cls"),
        ([("train_cls.model", {"archs": "x.y"})], "train_cls.model.archs did you mean arch"),
        ([("train_cls.nb_epochs", "many")], "train_cls.nb_epochs 'many' whole number above 0"),
        ([("train_cls.batch_size", True)], "train_cls.batch_size True whole number"),
        ([("train_cls.nb_epochs", ...)], "train_cls.nb_epochs is missing whole number"),
        ([("data.split_ratio", 1.5)], "data.split_ratio 1.5 share"),
        ([("data.dataset", "MNIST")], "data.dataset 'MNIST' CIFAR10 ImageNet Food101 Birdsnap"),
        ([("outdir", ...)], "outdir is missing folder"),
        ([("retrain_cls.metrics", "roarr")], "retrain_cls.metrics 'roarr' roar or kar"),
        ([("retrain_cls.percentiles", [10, 200])], "retrain_cls.percentiles 200 0 to 100"),
        ([("extract_cams.attribution_methods", [])], "extract_cams.attribution_methods list of entries"),
        ([("extract_cams.attribution_methods", [{"name": "a"}])], "attribution_methods.a expected name, method kwargs"),
        ([("extract_cams.attribution_methods", [GRAD_CAM, GRAD_CAM])], "gradcam name stands twice"),
        ([("train_cls.optimizer", {"lr": 1.0})], "train_cls.optimizer.name missing dotted path torch.optim.Adam"),
        ([("train_cls.loss", None)], "train_cls.loss None name torch.nn.CrossEntropyLoss"),
    ],
)
def test_a_wrong_key_or_value_is_one_line_that_names_it(changes, said, tmp_path):
    lines = problems(tmp_path, changed(OLD_ROAR, *changes))
    assert len([line for line in lines if names(line, f"old.yml {said}")]) == 1, lines


def test_all_problems_are_said_at_once(tmp_path):
    tree = changed(OLD_ROAR, ("train_cls.nb_epochs", 0), ("retrain_cls.percentiles", 3), ("outdir", 4))
    assert len(problems(tmp_path, tree)) == 3


def test_an_unknown_key_is_said_and_left_out(tmp_path):
    tree = changed(OLD_ROAR, ("retrain_cls.non_perturbed_testset", True), ("x_shared", {"lr": 1}))
    _, made = study_of(tmp_path, tree)
    found = {line.key: line for line in made.lines if "unknown key" in line.why}
    assert {*found} == {"retrain_cls.non_perturbed_testset", "x_shared"}
    assert "# retrain_cls.non_perturbed_testset: unknown key" in made.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("outdir: !!python/object/apply:os.system ['touch made']\ntrain_cls: {}\n", "1: tag os.system plain values"),
        ("train_cls: {}\noutdir: !!python/object/apply:os.path.join [1]\n", "2: os.path.join list of texts"),
        ("train_cls: [1\n", "not YAML"),
        ("a: 1\n", "no configuration of the ROAR reference system holds a train_cls pixel_perturbation_analysis"),
        ("- 1\n", "no configuration list"),
        ("", "no configuration NoneType"),
    ],
)
def test_a_file_that_is_none_is_refused_and_runs_nothing(text, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (line,) = problems(tmp_path, text)
    assert names(line, f"old.yml {said}"), line
    assert not (tmp_path / "made").exists()


def every_key(tree, before=""):
    for name, value in tree.items():
        yield f"{before}{name}"
        if isinstance(value, dict):
            yield from every_key(value, f"{before}{name}.")


@pytest.mark.parametrize("tree", [pytest.param(OLD_ROAR, marks=pytest.mark.long), OLD_LERF], ids=["roar", "lerf"])
def test_whatever_a_key_holds_there_is_a_study_or_a_message(tree, tmp_path):
    for key in every_key(tree):
        for value in (None, "x", "a.b", -1, 0, 1.5, True, [], [1], ["x"], {}, {"a": 1}, [{"name": "a"}], ...):
            try:
                for old in read_old([write(tmp_path, changed(tree, (key, value)))]):
                    for made in converted(old, Path("configs")):
                        assert isinstance(read_yaml(made.text), dict)
                        assert max(map(len, made.text.splitlines())) < 500
            except InvalidStudyError as error:
                assert str(error).startswith(str(tmp_path / "old.yml"))  # noqa: PT017


# As a command


TINY = [
    "data={call: patches, kwargs: {n_train: 24, n_test: 8, size: 16}}",
    "model.kwargs={num_classes: 4}",
    "model.call=resnet8",
    "fit={epochs: 1, batch_size: 8}",
    "fractions=[0.5]",
    "repeats=1",
    "executor=serial",
    "device=cpu",
]


def test_two_commands_lead_from_an_old_file_to_a_study_that_check_accepts_and_roar_runs(run, tmp_path):
    old = write(tmp_path, AS_THEY_WRITE_IT.replace("'kar'", "'roar'"), "config/roar.yml")
    before = old.read_bytes()
    status, said, err = run("convert", "config/roar.yml")
    assert (status, err) == (0, "")
    assert said.startswith("config/roar.yml: is now configs/roar.yml\n")
    assert "train_cls.nb_epochs: 50 -> fit.epochs: 50." in said
    *_, check_it, measure_it = said.splitlines()
    assert check_it == "next: efface check configs/roar.yml"
    assert measure_it == "then: efface measure configs/roar.yml --metrics roar"
    assert old.read_bytes() == before
    assert max(map(len, said.splitlines())) <= 120
    for words in (check_it, measure_it):
        status, said, err = run(*words.split()[2:], *TINY)
        assert status == 0, err
    report = (tmp_path / "runs" / "x" / "report" / "verdicts.csv").read_text()
    assert re.search(r"^roar,accuracy,gradcam,", report, re.MULTILINE)
    assert re.search(r"^gradcam +0\.\d+", said, re.MULTILINE)


@pytest.mark.long
def test_the_lerf_study_runs_on_photographs(run, tmp_path):
    write(tmp_path, OLD_LERF, "config/lerf.yml")
    assert run("convert", "config/lerf.yml")[0] == 0
    photographs(tmp_path / "data" / "ILSVRC2012", splits=("val",), each=2)
    small = ["data.kwargs.size=64", "data.kwargs.resize=64", "data.kwargs.test_limit=4"]
    small += ["model.kwargs={name: resnet18, num_classes: 2, weights: null}", "fractions=[0.05, 0.1]"]
    status, _, err = run("measure", "configs/lerf.yml", *small, "executor=serial", "device=cpu")
    assert status == 0, err
    summary = (tmp_path / "runs" / "lerf" / "report" / "summary.csv").read_text()
    for metric in ("lerf", "morf"):
        assert re.search(rf"^{metric},relative_change,gradcam,0.05,", summary, re.MULTILINE)


OWN = """
import numpy as np


def compute_brightness(model, image, label, power=1):
    assert image.shape[0] == 1
    return np.repeat(image[0].detach().cpu().numpy().mean(0, keepdims=True) ** power, 3, 0)
"""


@pytest.mark.long
def test_a_method_of_ones_own_is_called_as_it_was_there(run, tmp_path):
    for folder in ("src", "src/attribution_methods"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "src" / "attribution_methods" / "own.py").write_text(textwrap.dedent(OWN))
    own = {"name": "my map", "method": "src.attribution_methods.own.compute_brightness", "kwargs": {"power": 2}}
    tree = changed(OLD_ROAR, ("extract_cams.attribution_methods", [GRAD_CAM, own]))
    tree = changed(tree, ("retrain_cls.attribution_methods", [own]))
    write(tmp_path, tree)
    status, said, _ = run("convert", "old.yml", "--out", "studies")
    assert status == 0
    assert "batched: false" in said
    assert "Its name is now my_map" in " ".join(said.split())
    status, _, err = run("measure", "studies/old.yml", *TINY)
    assert status == 0, err
    assert "roar,accuracy,my_map," in (tmp_path / "runs/cifar10_resnet8/report/summary.csv").read_text()


def test_a_study_whose_code_python_cannot_find_is_written_and_the_reason_is_said(run, tmp_path):
    own = {"name": "mine", "method": "src.nowhere.compute_mine", "kwargs": {}}
    tree = changed(OLD_ROAR, ("extract_cams.attribution_methods", [own]), ("retrain_cls.attribution_methods", [own]))
    write(tmp_path, tree)
    status, _, err = run("convert", "old.yml")
    assert status == 1
    assert names(err, "configs/old.yml is written, but cannot be used yet src.nowhere")
    assert (tmp_path / "configs" / "old.yml").is_file()


def test_nothing_is_overwritten_and_nothing_is_written_if_one_file_is_wrong(run, tmp_path):
    write(tmp_path, OLD_ROAR, "config/a.yml")
    write(tmp_path, OLD_LERF, "config/b.yml")
    write(tmp_path, {"mine": 1}, "configs/b.yml")
    before = (tmp_path / "configs" / "b.yml").read_bytes()
    status, _, err = run("convert", "config/a.yml", "config/b.yml")
    assert status == 2
    assert names(err, "configs/b.yml: is there already overwrites nothing --out")
    assert [path.name for path in (tmp_path / "configs").iterdir()] == ["b.yml"]
    assert (tmp_path / "configs" / "b.yml").read_bytes() == before
    write(tmp_path, changed(OLD_LERF, ("outdir", None)), "config/wrong.yml")
    assert run("convert", "config/a.yml", "config/wrong.yml")[0] == 2
    assert not (tmp_path / "configs" / "a.yml").exists()
    status, _, err = run("convert", "config/a.yml", "--out", "config")  # the file itself
    assert status == 2
    assert "config/a.yml: is there already" in err
    status, _, err = run("convert", "config/a.yml", write(tmp_path, OLD_LERF, "other/a.yml").relative_to(tmp_path))
    assert status == 2
    assert "two of the files would have this name" in err
    assert run("convert", "config/nothing.yml")[0] == 2


def test_a_study_command_on_an_old_file_names_convert(run, tmp_path):
    for tree in (OLD_ROAR, AS_THEY_WRITE_IT):
        write(tmp_path, tree)
        status, _, err = run("check", "old.yml")
        assert status == 2
        assert "'efface convert old.yml' writes its study" in err
