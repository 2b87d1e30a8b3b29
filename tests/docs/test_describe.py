"""scripts/describe_methods.py: what it derives is what docs/methods.md says."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from efface.base.types import Split
from small.networks import hooks

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "methods.md").read_text()


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("describe_methods", ROOT / "scripts" / "describe_methods.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def part(name):
    (found,) = re.findall(f"<!-- begin: {name} -->\n\n(.*?)\n\n<!-- end: {name} -->", PAGE, re.DOTALL)
    return found


def test_the_table_of_methods_is_what_their_docstrings_say(script):
    assert part("table") == script.table(), "run: python scripts/describe_methods.py table"


def test_a_row_says_sentence_settings_source_and_difference(script):
    def made(model, images, targets, *, base, steps: int = 2, rule: str = "left", max_batch: int = 8):
        """Map a | b. One pass.

        steps: points.

        Source: Someone 2020
            (arXiv:1).
        Differs: nothing.
        """

    assert script.is_method(made)
    assert script.first_line(made) == "Map a | b."
    assert script.settings(made) == "`base` (needed), `steps: 2`, `rule: left`"
    assert script.said(made, "Source") == "Someone 2020 (arXiv:1)"
    assert script.markdown(("",), [("a | b",)]) == "|  |\n| --- |\n| a \\| b |"


def test_a_part_is_replaced_between_its_markers(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "PAGE", tmp_path / "page.md")
    script.PAGE.write_text("a\n<!-- begin: x -->\nold\n<!-- end: x -->\nb <!-- begin: y --><!-- end: y -->\n")
    for _ in range(2):
        script.fill("x", "new")
    assert script.PAGE.read_text() == (
        "a\n<!-- begin: x -->\n\nnew\n\n<!-- end: x -->\nb <!-- begin: y --><!-- end: y -->\n"
    )


def test_passes_are_counted_both_ways_and_split_into_images_and_calls(script, tiny):
    model, images = tiny(3, 4), torch.rand(3, 3, 8, 8)

    def call():
        model(images[:1])
        points = images.requires_grad_()
        score = model(points).sum()
        torch.autograd.grad(score, points, retain_graph=True)
        torch.autograd.grad(score, points)

    assert script.counted(model, call) == {"forward": 4, "backward": 6}
    assert hooks(model) == 0
    assert script.passed(6, 11, 21, 4) == "5 (and 1 a call)"
    assert script.passed(4000, 8000, 16000, 4) == "4,000"
    assert script.passed(5, 10, 21, 4) == "5.2"


def test_the_class_of_the_page_learns(tiny):
    page = (ROOT / "docs" / "extending.md").read_text()
    (text,) = [each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class AboveMean" in each]
    exec(text, names := {})  # noqa: S102
    method = names["AboveMean"](scale=2.0)
    data = Split(torch.full((3, 3, 8, 8), 51, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    method.fit(tiny(3, 4), data, seed=0, max_batch=2)
    torch.testing.assert_close(method(None, torch.ones(2, 3, 8, 8), None), torch.full((2, 3, 8, 8), 1.6))
