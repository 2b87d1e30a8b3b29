"""scripts/describe_networks.py: every method and network is in docs/choosing.md, and reasons are told apart."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from efface.plug import words
from efface.stages.trial.networks import reason as reason_of
from efface.study.schema import MethodEntry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "choosing.md").read_text()


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(ROOT / "scripts"))
        spec = importlib.util.spec_from_file_location("describe_networks", ROOT / "scripts" / "describe_networks.py")
        module = importlib.util.module_from_spec(spec)
        patched.setitem(sys.modules, "describe_networks", module)  # its dataclass looks for its own module
        spec.loader.exec_module(module)
        yield module


def part(name):
    (found,) = re.findall(f"<!-- begin: {name} -->\n\n(.*?)\n\n<!-- end: {name} -->", PAGE, re.DOTALL)
    return found


@pytest.mark.parametrize("name", ["convolutional", "transformers"])
def test_the_page_has_every_method_and_every_network(script, name):
    text = " ".join(part(name).split())
    entries = script.entries([])
    missing = [each.name for each in entries if not isinstance(each, str) and f"`{each.name}`" not in text]
    assert missing == [], "run: python scripts/describe_networks.py"
    assert [each for each in entries if isinstance(each, str) and each not in text] == []
    for column in {"convolutional": script.CONVOLUTIONAL, "transformers": script.TRANSFORMERS}[name]:
        assert f" {column} |" in text


def test_every_short_word_but_the_controls_has_an_entry(script):
    known = {word for word, path in words.index("method").items() if ".control." not in path}
    tried = {words.word_of(each.method) for each in script.entries([]) if not isinstance(each, str)}
    untried = {re.match("`(.*?)`", each)[1] for each in script.entries([]) if isinstance(each, str)}
    assert tried | untried == known


@pytest.fixture
def tanh():
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of some weights Score-CAM's map is constant
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(720, 10))
    return model.eval()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"method": "efface.methods.gradient.gradient"}, r"^$"),
        ({"method": "efface.methods.cam.score_cam", "kwargs": {"channels": 2}}, r"^$"),
        ({"method": "efface.methods.path.expected_gradients", "kwargs": {"samples": 2, "pool": 4}}, r"^$"),
        ({"method": "efface.methods.backprop.guided_backprop"}, r"^no ReLU module ran in the network$"),
        ({"method": "efface.methods.control.sobel"}, r"^differs: the map is the same for every class$"),
        ({"method": "efface.methods.gradient.gradient", "batched": False}, r"^FAILS: \w+: "),
    ],
)
def test_a_refusal_is_told_from_a_failure_and_from_maps_that_ignore_the_class(script, tanh, line, why):
    entry = MethodEntry(name="x", **line)
    assert re.search(why, script.tried(entry, tanh, 16, {}))


def test_reasons_lose_what_is_particular_to_one_network():
    said = {
        "layer 'blocks.0.norm1' (LayerNorm) returns shape (2, 17, 192), and its bias has no known place; take": (
            "a LayerNorm has a bias with no known place"
        ),
        "Net is in no part of FullGrad, so its parts miss the logit of the first image by 1.2e-05: why; take": (
            "the network is in no part of FullGrad: why"
        ),
        "Net uses 'blocks.0.attn.q_bias' outside a layer of its own": (
            "the network uses its q_bias outside a layer of its own"
        ),
        "layer 'norm' of Net returns n x 2 x 2 x 192, which is no feature map n c h w (n h w c); layers that are: x": (
            "a layer is no feature map n c h w (n h w c)"
        ),
        "guided_backprop: no ReLU module ran in Net, whose non-linearities are GELU": (
            "no ReLU module ran in the network"
        ),
        "captum's DeepLift cannot change the gelu of 'blocks.0.mlp.act' (GELU); use": (
            "captum's DeepLift cannot change the gelu of a GELU"
        ),
    }
    for text, reason in said.items():
        assert reason_of(text, "Net") == reason


def test_cells_number_their_reasons(script):
    reasons = ["no such layer", "FAILS: KeyError: x", "differs: the map is the same for every class"]
    assert [script.verdict(each, reasons) for each in ["", *reasons]] == ["yes", "no (1)", "FAILS (2)", "differs (3)"]


def test_a_method_whose_needed_setting_is_unknown_is_named(script, monkeypatch):
    monkeypatch.setattr(script, "SETTINGS", {})
    (said,) = script.entries(["contrast"])
    assert said == "`contrast` is not in the table: it needs base."
