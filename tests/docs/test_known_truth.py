"""scripts/known_truth.py: the exact map is first on every metric that docs/metrics.md does not name."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from small.reports import curve_of

ROOT = Path(__file__).parents[2]
SECTION = (
    (ROOT / "docs" / "metrics.md").read_text().partition("### On networks designed by hand")[2].partition("\n## ")[0]
)
METHODS = (
    "{name: random, method: random}",
    "{name: exact_map, method: exact_map}",
    "{name: gradient, method: gradient}",
    "{name: integrated_gradients, method: integrated_gradients, kwargs: {steps: 16}}",
    "{name: smooth_grad, method: smooth_grad, kwargs: {samples: 8}}",
    "{name: sobel, method: sobel}",
    "{name: occlusion, method: occlusion, kwargs: {patch: 2, stride: 2, value: 0.0}}",
)
FEW = ["data.kwargs.n_test=24", f"attribution_methods=[{', '.join(METHODS)}]"]


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        spec = importlib.util.spec_from_file_location("known_truth", ROOT / "scripts" / "known_truth.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def named():
    """The metrics and networks of the page's list of misses, as `metric on network`; a metric alone stands for all."""
    heads = re.findall(r"^\* \*\*(.*?)\*\*", SECTION, re.MULTILINE)
    return {head.replace("`", "").replace("infidelity by noise", "infidelity_noise") for head in heads}


def test_a_row_is_better_than_the_exact_map_by_its_mean_on_the_images_of_both(script):
    values = {"exact_map": [0.5, 0.5, np.nan], "same": [0.5, 0.5, 0.9], "low": [0.1, 0.1, 0.1]}
    found = {name: np.array(each)[:, None] for name, each in values.items()}
    curves = [curve_of(each, name, direction="higher", at=(0.0,)) for name, each in found.items()]
    assert script.standing(curves).is_first, "its other image has no exact value"
    curves.append(curve_of(np.array([[0.6], [0.5], [np.nan]]), "ahead", direction="higher", at=(0.0,)))
    one = script.standing(curves)
    assert (one.is_first, one.name) == (False, "ahead")
    assert one.best == pytest.approx(0.55)
    nothing = [curve_of(np.full((3, 1), np.nan), "exact_map", direction="higher", at=(0.0,))]
    assert script.standing(nothing) is None
    shown = script.table({"morf": {"or": one}, "lerf": {"and": script.Standing(True, 1.0, 1.0, "exact_map")}})
    assert "| `morf` | `ahead` 0.55, exact 0.5 | no value |" in shown
    assert "| `lerf` | no value | first |" in shown


def test_the_page_names_each_miss_of_its_own_table():
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", SECTION, re.MULTILINE)
    networks = re.search(r"^\| metric \| (.*) \|$", SECTION, re.MULTILINE)[1].split(" | ")
    assert len(rows) == 16
    for metric, cells in rows:
        for network, cell in zip(networks, cells.split(" | "), strict=True):
            assert cell == "first" or {metric, f"{metric} on {network}"} & named(), (metric, network)


@pytest.mark.long
def test_the_exact_map_is_first_on_every_metric_that_the_page_does_not_name(script):
    found = script.standings(script.STUDY, FEW)
    assert len(found) == 16
    misses = {
        (metric, network)
        for metric, of_metric in found.items()
        for network in ("counter", "or", "and", "contrast")
        if not (network in of_metric and of_metric[network].is_first)
    }
    assert {f"{m} on {n}" for m, n in misses if m not in named()} <= named()
    assert ("infidelity_noise", "counter") in misses, "a gradient is of the right kind there"
