"""`check` and the page say which layer a method looks at, and how it is laid out."""

import json

import pytest

from efface.report.formats import breakable
from small.studies import efface, write_study

NETWORKS = {
    "vit": """
import torch
from torch import nn


class ViT(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 12))
        self.place = nn.Parameter(torch.randn(1, 17, 12))
        settings = {"dropout": 0.0, "batch_first": True, "norm_first": True}
        self.blocks = nn.Sequential(*(nn.TransformerEncoderLayer(12, 2, 24, **settings) for _ in range(2)))
        self.head = nn.Linear(12, classes)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), tokens], 1) + self.place
        return self.head(self.blocks(tokens)[:, 0])


def network(classes: int = 4):
    return ViT(classes)
"""
}
METHODS = [
    {"name": "random", "method": "random"},
    {"name": "cam", "method": "grad_cam"},
    {"name": "contrasted", "method": "contrast", "kwargs": {"base": "hires_cam"}},
    {"name": "named", "method": "captum", "kwargs": {"algorithm": "LayerActivation", "layer": "blocks.0.norm2"}},
    {"name": "saliency", "method": "captum", "kwargs": {"algorithm": "Saliency"}},
    {"name": "by_masks", "method": "vit_cx"},
]
SAID = {
    "cam": "layer blocks.1.norm1, n x tokens x channels, 1 prefix token and 4 x 4 patches",
    "contrasted": "base: layer blocks.1.norm1, n x tokens x channels, 1 prefix token and 4 x 4 patches",
    "named": "layer blocks.0.norm2, n x tokens x channels, 1 prefix token and 4 x 4 patches",
    "by_masks": "layer before blocks.1.self_attn, n x tokens x channels, 1 prefix token and 4 x 4 patches",
}


def study(folder, **changes):
    ours = {"model": {"call": "vit.network"}, "attribution_methods": METHODS, "metrics": ["morf"]}
    write_study(folder, NETWORKS, **(ours | changes))


@pytest.mark.long
def test_check_and_the_page_say_which_layers_methods_look_at(tmp_path):
    study(tmp_path)
    checked = efface(tmp_path, "check", "study.yml")
    assert checked.code == 0, checked.err
    lines = checked.out.splitlines()
    assert [line for line in lines if ": layer " in line] == [f"{name}: {said}" for name, said in SAID.items()]

    assert efface(tmp_path, "all", "study.yml").code == 0
    records = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    layers = {row["method"]: row["layers"] for row in records if "layers" in row}
    assert layers == {name: [said] for name, said in SAID.items()}
    page = (tmp_path / "run" / "report" / "report.html").read_text()
    for name, said in SAID.items():
        assert f'<tr><th scope="row">{breakable(name)}</th><td>{said}</td></tr>' in page


def test_a_layer_of_attention_ends_the_check_with_layers_that_work(tmp_path):
    wrong = [{"name": "cam", "method": "grad_cam", "kwargs": {"layer": "blocks.1.linear1"}}]
    study(tmp_path, attribution_methods=[METHODS[0], *wrong])
    checked = efface(tmp_path, "check", "study.yml")
    assert checked.code == 1
    assert "attribution_methods.cam: layer 'blocks.1.linear1' of ViT" in checked.err
    assert "layers that work: blocks.0.norm2, blocks.1.norm1" in checked.err


def test_a_convolutional_network_says_its_layer_too(tmp_path):
    study(tmp_path, model={"call": "net.network"}, attribution_methods=METHODS[:2])
    checked = efface(tmp_path, "check", "study.yml")
    assert "cam: layer 1, n x channels x height x width" in checked.out.splitlines()
