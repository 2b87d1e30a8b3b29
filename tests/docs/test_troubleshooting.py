"""docs/troubleshooting.md: each message that the page quotes is the one that efface gives."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from PIL import Image
from torch import nn

import efface
from efface.__main__ import main
from efface.store.locks import only_one
from small.studies import STUDY, write_study
from small.studies import efface as run_efface

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
SECTIONS = dict(re.findall(r"^### ([^\n]+)\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE))
CNN = "nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(96, 4)"
IMAGES, LABELS = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4


def cnn(*more):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(96, 4), *more
    )


def study(*words, modules=None, **changes):
    """What `efface check` of a small study says when it refuses."""

    def said(folder, capsys):
        write_study(folder, modules, **changes)
        done = run_efface(folder, "check", "study.yml", *words)
        return done.err + done.out

    return said


def network(forward):
    """A study whose network has this forward."""
    text = "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    text += f"        self.body = nn.Sequential({CNN})\n\n    def forward(self, x):\n        {forward}\n"
    return study(modules={"bent": text}, model="bent.Net", fit=None, metrics=["morf"])


def method(body, **entry):
    """A study with a method of one's own."""
    text = f"import torch\n\n\ndef maps(model, images, targets):\n    {body}\n"
    entries = [STUDY["attribution_methods"][0], {"name": "own", "method": "own.maps"} | entry]
    return study(modules={"own": text}, attribution_methods=entries, fit=None, metrics=["morf"])


def one_method(word, **kwargs):
    entries = [STUDY["attribution_methods"][0], {"name": word, "method": word, "kwargs": kwargs}]
    return study(attribution_methods=entries, fit=None, metrics=["morf"])


def evaluated(**call):
    def said(folder, capsys):
        with pytest.raises(ValueError) as found:
            efface.evaluate(**{"model": cnn(), "images": IMAGES, "labels": LABELS, "methods": ["gradient"]} | call)
        return str(found.value)

    return said


def busy(folder, capsys):
    write_study(folder)
    (folder / "run").mkdir()
    with only_one(folder / "run"):
        assert main(["train", "study.yml"]) == 1
    return capsys.readouterr().err


def maps_file(count, with_images=None):
    def said(folder, capsys):
        efface.write_maps("theirs.npz", torch.rand(count, 16, 16), images=with_images)
        entries = [STUDY["attribution_methods"][0], {"name": "theirs", "file": "theirs.npz"}]
        write_study(folder, attribution_methods=entries, fit=None, metrics=["morf"])
        return run_efface(folder, "check", "study.yml").err

    return said


def pictures(folder, capsys):
    for split in ("train", "val"):
        (folder / "photos" / split / "cat").mkdir(parents=True)
    write_study(folder, data={"call": "image_folder", "kwargs": {"root": "photos", "size": 32}})
    return run_efface(folder, "check", "study.yml").err


def small_pictures(folder, capsys):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (folder / "photos" / split / name).mkdir(parents=True)
            Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / "photos" / split / name / "1.png")
    write_study(folder, data={"call": "image_folder", "kwargs": {"root": "photos", "size": 32, "resize": None}})
    return run_efface(folder, "check", "study.yml").err


def not_there(package, **entry):
    def said(folder, capsys):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            write_study(folder, attribution_methods=[STUDY["attribution_methods"][0], entry], metrics=["morf"])
            main(["check", "study.yml"])
            return capsys.readouterr().err

    return said


def in_one_process(folder, capsys):
    with pytest.warns(UserWarning, match="everything runs in this process") as found:
        efface.evaluate(
            cnn(), IMAGES, LABELS, {"own": lambda model, images, targets: images.mean(1)}, ["morf"],
            executor={"call": "processes"}, verbose=False,
        )  # fmt: skip
    return str(found[0].message)


GELU = "from torch import nn\n\n\ndef net():\n    return nn.Sequential(" + CNN.replace("ReLU", "GELU") + ")\n"
THREE = "from torch import nn\n\n\ndef net():\n    return nn.Sequential(" + CNN.replace("96, 4", "96, 3") + ")\n"
RANDOM = STUDY["attribution_methods"][0]


def alone(path):
    return [{"name": "a", "method": path}]


REAL = {
    "A key is unknown": study("fit.epoch=2"),
    "A word names no plug-in": study(attribution_methods=alone("gradcam")),
    "My module is not found": study(attribution_methods=alone("my_mapz.mine")),
    "My module is found, but its import fails": study(
        modules={"broken": "import no_such_package\n"}, attribution_methods=alone("broken.mine")
    ),
    "A setting does not exist": study(attribution_methods=[alone("smooth_grad")[0] | {"kwargs": {"sample": 3}}]),
    "A setting would change no number": study(metrics=[{"name": "random_logit", "kwargs": {"imputer": "blur"}}]),
    "A metric needs training, and the study has none": study(fit=None),
    "The network changes its input": network("x.sub_(0.5); return self.body(x)"),
    "The network ends with a softmax": network("return self.body(x).softmax(1)"),
    "The network returns one number for two classes": network("return self.body(x)[:, :1]"),
    "The network drops the axis of a single image": network("return self.body(x).squeeze(0)"),
    "Two passes of one image differ": network("import torch; return self.body(x) + torch.rand(1)"),
    "An image has other logits in another batch": network("y = self.body(x); return y - y.mean(0) / 2"),
    "The logits are inside a dict": network("return {'a': self.body(x), 'b': x.flatten(1)}"),
    "The numbers of classes differ": study(modules={"three": THREE}, model="three.net"),
    "The weights are not there": study(weights="nothere.pt"),
    "The layer of a CAM is not there": one_method("grad_cam", layer="layer4"),
    "The method needs ReLUs": study(
        modules={"gelu": GELU},
        model="gelu.net",
        fit=None,
        metrics=["morf"],
        attribution_methods=[RANDOM, {"name": "guided_backprop", "method": "guided_backprop"}],
    ),
    "The method needs attention": one_method("generic_attention"),
    "The maps are not finite": method("return images.mean(1) / 0 - images.mean(1) / 0"),
    "The maps have another shape": method("return images.mean((1, 2, 3))"),
    "The maps keep their channels": study(
        post=[], fit=None, metrics=["morf"], attribution_methods=[RANDOM, {"name": "gradient", "method": "gradient"}]
    ),
    "The method changes the network": method("next(model.parameters()).data.mul_(2); return images.mean(1)"),
    "All maps are alike": method("return torch.zeros_like(images[:, 0])"),
    "A package is missing": not_there("captum", name="a", method="captum", kwargs={"algorithm": "Saliency"}),
    "A Captum object belongs to another network": evaluated(methods={"ig": IntegratedGradients(cnn())}),
    "A class folder is empty": pictures,
    "The pictures are too small": small_pictures,
    "Images from Python are out of range": evaluated(images=IMAGES * 255),
    "The numbers of images and labels differ": evaluated(labels=LABELS[:5]),
    "The file of maps has another number of rows": maps_file(7),
    "The file of maps was made for other images": maps_file(
        24, torch.arange(24, dtype=torch.uint8)[:, None, None, None].expand(24, 3, 16, 16)
    ),
    "Another efface is at work": busy,
    "The GPU cannot be used": study("device=cuda:63"),
    "Something cannot be sent to other processes": in_one_process,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("net", "mine", "pair"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def quoted(text):
    return re.findall(r"```text\n(.*?)```", text, re.DOTALL)


def pattern(line):
    """What matches a quoted line: `...` stands for anything, and nothing else is left out."""
    return ".*".join(map(re.escape, line.split("...")))


def test_every_entry_has_symptom_cause_or_remedy_and_every_quotation_a_real_message():
    assert len(SECTIONS) >= 40
    for name, text in SECTIONS.items():
        assert "**Remedy.**" in text, name
        assert "**Cause.**" in text or name == "The run was killed", name
    assert [name for name, text in SECTIONS.items() if quoted(text)] == list(REAL)


@pytest.mark.long
@pytest.mark.parametrize("name", REAL)
def test_a_quoted_message_is_the_real_one(name, folder, capsys):
    said = REAL[name](folder, capsys)
    (block,) = quoted(SECTIONS[name])
    for line in block.strip().splitlines():
        assert re.search(rf"^{pattern(line)}$", said, re.MULTILINE), said


def test_the_sentence_of_taskw_is_in_taskw():
    text = SECTIONS["A word before -- has no effect with taskw"]
    (quotation,) = re.findall(r"`taskw: '([^']+)' (stands before --)`", " ".join(text.split()))
    assert f"'$word' {quotation[1]}" in (Path(__file__).parents[2] / "taskw").read_text()
