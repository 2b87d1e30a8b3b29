"""`efface new` writes studies that `check` accepts, explains each key, and overwrites nothing."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from efface.__main__ import main
from efface.commands.new import kind_of, study_text
from efface.plug import words
from efface.study import recommended
from efface.study.study import Study, check
from small.messages import names
from small.studies import efface
from small.tiers import first_short

ROOT = Path(__file__).parents[2]
QUICK = ["executor=serial", "data.kwargs.limit=12"]
NO_WEIGHTS = "model.kwargs.weights=null"


@pytest.fixture
def folder(tmp_path):
    drawn = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 4)):
        for shade, name in ((0, "dark"), (128, "light")):
            (tmp_path / "pictures" / split / name).mkdir(parents=True)
            for i in range(count):
                values = shade + drawn.integers(0, 128, (40, 36, 3), dtype=np.uint8)
                Image.fromarray(values).save(tmp_path / "pictures" / split / name / f"{i}.png")
    return tmp_path


CASES = [
    ("digits", "resnet8", "cnn", ()),
    ("blocks", "resnet8", "cnn", ()),
    ("one_signal", "mlp", "mlp", ()),
    ("folder:pictures", "resnet8", "cnn", ()),
    ("blockwise", "mlp", "mlp", ()),
    ("patches", "vgg5", "cnn_without_relu", ("attribution_methods.rise.kwargs.samples=4",)),
    ("patches", "preact_resnet18", "cnn", ()),
    ("digits", "mnist_cnn", "cnn", ()),
    ("digits", "timm:resnet10t", "cnn", (NO_WEIGHTS,)),
    ("folder:pictures", "torchvision:squeezenet1_1", "cnn", (NO_WEIGHTS, "data.kwargs.size=64", "max_batch=8")),
    (
        "folder:pictures",
        "timm:vit_tiny_patch16_224",
        "vit",
        (
            "model.kwargs={name: vit_tiny_patch16_224, num_classes: 2, img_size: 64, depth: 2, embed_dim: 24}",
            "data.kwargs.size=64",
            "outputs=logits",
            "attribution_methods.rise.kwargs.samples=4",
        ),
    ),
]


@pytest.mark.long
@pytest.mark.parametrize(("data", "model", "kind", "sets"), first_short(4, CASES))
def test_check_accepts_what_is_written(data, model, kind, sets, folder):
    said = efface(folder, "new", "mine.yml", "--data", data, "--model", model)
    assert said.code == 0, said.err
    assert "efface check mine.yml" in said.out
    done = efface(folder, "check", "mine.yml", *QUICK, *sets)
    assert done.code == 0, done.err
    tree = yaml.safe_load((folder / "mine.yml").read_text())
    methods = [entry["name"] for entry in tree["attribution_methods"]]
    assert methods == [*recommended.CONTROLS, *recommended.METHODS[kind]]
    assert tree["metrics"] == [*recommended.METRICS]


@pytest.mark.long
def test_check_accepts_a_network_of_transformers_in_a_folder(folder):
    import transformers

    made = transformers.ViTConfig(
        num_labels=2,
        image_size=32,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
    )
    transformers.AutoModelForImageClassification.from_config(made).save_pretrained(folder / "own_vit")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "own_vit")
    words = ("--data", "folder:pictures", "--model", "huggingface:own_vit", "--for", "vit")
    assert efface(folder, "new", "mine.yml", *words).code == 0
    tree = yaml.safe_load((folder / "mine.yml").read_text())
    assert tree["data"]["kwargs"]["size"] == 32
    assert tree["unit"] == "token"
    occlusion = next(each for each in tree["attribution_methods"] if each["name"] == "occlusion")
    assert occlusion["kwargs"] == {"patch": 8, "stride": 8}
    done = efface(folder, "check", "mine.yml", *QUICK, "attribution_methods.rise.kwargs.samples=4")
    assert done.code == 0, done.err


@pytest.mark.parametrize("data", ["cifar10", "cifar100", "svhn", "mnist", "huggingface:uoft-cs/cifar100"])
def test_data_that_would_be_downloaded_are_written_without_a_download(data, tmp_path):
    text = study_text(tmp_path / "mine.yml", data, "resnet20", None)
    study = check(yaml.safe_load(text), tmp_path / "mine.yml")
    assert study.data.call.endswith((".load", f".{data}"))
    known = {"cifar100": 100}.get(data, None if ":" in data else 10)
    assert known is None or study.model.kwargs["num_classes"] == known


def test_a_photograph_network_gets_images_of_its_size(tmp_path):
    text = study_text(tmp_path / "mine.yml", "cifar10", "timm:swin_tiny_patch4_window7_224", None)
    tree = yaml.safe_load(text)
    assert (
        tree["data"]["kwargs"] | {"size": 224, "interpolation": "bicubic", "test_limit": 200} == tree["data"]["kwargs"]
    )
    assert tree["model"]["kwargs"]["weights"] == "pretrained"
    assert tree["unit"] == {"call": "patch", "kwargs": {"size": 16}}
    assert [each["name"] for each in tree["attribution_methods"]][2:] == [*recommended.METHODS["swin"]]


def test_every_key_is_explained_and_the_editor_line_stands_first(folder):
    assert efface(folder, "new").code == 0
    text = (folder / "study.yml").read_text()
    lines = text.splitlines()
    assert lines[0] == "# yaml-language-server: $schema=study.schema.json"
    for key in yaml.safe_load(text):
        (at,) = [i for i, line in enumerate(lines) if re.match(rf"{key}:", line)]
        assert re.match(rf"# {key}: \w", lines[at - 1]), key
    assert max(map(len, lines)) <= 120
    metrics = text.partition("\nmetrics:\n")[2].partition("\n\n")[0].splitlines()
    assert len(metrics) == len(recommended.METRICS) + len(recommended.COSTLY_METRICS)
    assert all(re.search(r"\S +# [a-z].{20}", line) for line in metrics)


def test_lines_of_ones_own_are_marked_and_named(folder):
    said = efface(folder, "new", "mine.yml", "--data", "folder:nowhere", "--model", "resnet8")
    assert said.code == 0
    assert "root, num_classes" in said.out
    assert len(re.findall("# <- ", (folder / "mine.yml").read_text())) == 2


OWN = """
from torch import nn

from efface.data.patches import patches


def data():
    return patches(n_train=24, n_test=8, size=16)


def network(num_classes: int = 10):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(128, num_classes)
    )
"""


def test_data_and_network_of_ones_own_are_looked_at(folder):
    (folder / "own.py").write_text(OWN)
    assert efface(folder, "new", "mine.yml", "--data", "own.data", "--model", "own.network").code == 0
    tree = yaml.safe_load((folder / "mine.yml").read_text())
    assert tree["data"] == "own.data"
    assert tree["model"] == {"call": "own.network", "kwargs": {"num_classes": 4}}
    done = efface(folder, "check", "mine.yml", "executor=serial")
    assert done.code == 0, done.err


def test_nothing_is_overwritten(folder):
    (folder / "mine.yml").write_text("mine")
    (folder / "link.yml").symlink_to("nowhere")
    for name in ("mine.yml", "link.yml"):
        said = efface(folder, "new", name)
        assert said.code == 1
        assert names(said.err, f"{name} already")
    assert (folder / "mine.yml").read_text() == "mine"
    assert not (folder / "nowhere").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["x.txt"], "x.txt .yml"),
        (["a/x.yml"], "a folder"),
        (["x.yml", "--data", "diggits"], "--data 'diggits' 'digits'"),
        (["x.yml", "--data", "folder:"], "--data path folder:my_pictures"),
        (["x.yml", "--data", "huggingface"], "--data name"),
        (["x.yml", "--model", "resnet88"], "--model 'resnet88' 'resnet8'"),
        (["x.yml", "--model", "timm"], "--model timm:NAME"),
        (["x.yml", "--model", "timm:vit_tiny_patch16_223"], "timm vit_tiny_patch16_224"),
        (["x.yml", "--model", "torchvision:resnet19"], "torchvision resnet18"),
        (["x.yml", "--model", "torchvision:resnet18"], "--model 3 channels digits 1"),
        (["x.yml", "--model", "vgg14"], "--model vgg14 digits 1 x 8 x 8"),
        (["x.yml", "--data", "no_module.mine"], "'no_module.mine' module"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_written(asked, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["new", *asked]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert names(line, said)
    assert list(tmp_path.iterdir()) == []


def test_the_kind_of_a_network_is_told_by_its_name():
    told = {
        "timm:vit_tiny_patch16_224": "vit",
        "timm:deit_small_patch16_224": "vit",
        "huggingface:facebook/dinov2-small": "vit",
        "torchvision:swin_t": "swin",
        "timm:maxvit_tiny_tf_224": "swin",
        "torchvision:resnet50": "cnn",
        "resnet8": "cnn",
    }
    assert {name: kind_of(name) for name in told} == told


def test_the_recommendations_are_those_of_the_page():
    page = (ROOT / "docs" / "choosing.md").read_text()
    methods = page.partition("## Methods to run first")[2].partition("\nWhy:")[0]
    rows = [re.findall(r"`(\w+)`", line.split(" | ")[1]) for line in methods.splitlines() if line.startswith("| a ")]
    assert rows == [list(recommended.METHODS[kind]) for kind in recommended.KINDS]
    metrics = page.partition("## Metrics to run first")[2].partition("\n- **")[0]
    assert {*recommended.METRICS, *recommended.COSTLY_METRICS} <= set(re.findall(r"`(\w+)`", metrics))
    assert all(f"`{name}`" in page for name in recommended.CONTROLS)
    known = {*words.index("method"), *words.index("metric")}
    assert {*recommended.METRICS, *recommended.COSTLY_METRICS, *sum(recommended.METHODS.values(), ())} <= known


def test_every_key_of_a_study_has_a_sentence():
    from efface.plug import docstrings

    assert list(docstrings.meanings(__import__("inspect").getdoc(Study))) == list(Study.model_fields)
