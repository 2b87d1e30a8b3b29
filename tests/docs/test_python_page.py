"""docs/python.md and the notebook run as they stand."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import efface

DOCS = Path(__file__).parents[2] / "docs"
NOTEBOOK = json.loads((DOCS / "notebooks/quickstart.ipynb").read_text())
BLOCKS = re.findall(r"```py\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)

pytestmark = pytest.mark.filterwarnings(
    "ignore:Setting forward:UserWarning", "ignore:Setting backward:UserWarning", "ignore:Input Tensor:UserWarning"
)


def source(kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == kind]


@pytest.mark.long
def test_the_notebook_runs_and_says_what_its_text_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "notebook"}
    for text in source("code"):
        exec(compile(text, "quickstart", "exec"), names)  # noqa: S102
    result = names["result"]
    assert (tmp_path / "page.html").is_file()
    assert set(result.table.method) == {"random", "saliency", "ig", "deep_lift", "mine"}
    assert result.accuracy > 0.7
    better = result.table[result.table.verdict == "better"]
    assert (better.gain_low > 0).all()
    assert {"ig", "deep_lift"} <= set(better.method)
    assert {name: tuple(maps.shape) for name, maps in names["maps"].items()} == {
        "mine": (8, 8, 8),
        "smooth_grad": (8, 1, 8, 8),
    }


def test_the_notebook_is_kept_without_outputs():
    assert all(
        not cell["outputs"] and cell["execution_count"] is None for cell in NOTEBOOK["cells"] if "outputs" in cell
    )


@pytest.mark.long
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_examples_of_the_page_run(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(16, 3)]
    images, labels = torch.rand(12, 3, 8, 8), torch.arange(12) % 3
    names = {
        "efface": efface,
        "model": nn.Sequential(*layers),
        "images": images,
        "labels": labels,
        "train_images": images,
        "train_labels": labels,
        "my_function": lambda model, images, targets: images.mean(1),
    }
    text = BLOCKS[number].replace('"epochs": 10', '"epochs": 1')
    exec(compile(text, "python.md", "exec"), names)  # noqa: S102
    assert len(names["result"].table) > 0
    assert names["result"].failures == ()
