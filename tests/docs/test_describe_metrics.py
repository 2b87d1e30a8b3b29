"""scripts/describe_metrics.py: docs/metrics.md says what the metrics, units and fills themselves say."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from efface import impute, metrics
from efface.erase import units
from efface.study import study as config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text()


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        yield importlib.import_module("describe_metrics")


def part(name):
    (found,) = re.findall(f"<!-- begin: {name} -->\n\n(.*?)\n\n<!-- end: {name} -->", PAGE, re.DOTALL)
    return found


def first_cells(text):
    return re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)


def test_the_tables_are_what_metrics_units_and_fills_say(script):
    remedy = "run: python scripts/describe_metrics.py"
    assert part("metrics") == script.metrics_table(), remedy
    assert part("reads") == script.reads(), remedy
    assert part("units") == script.plugs(units, ["patch", "token", "superpixel"]), remedy
    assert part("fills") == script.fills(), remedy


def test_every_metric_stands_in_the_table_once_and_says_its_source_and_how_it_is_deceived(script):
    assert sorted(first_cells(part("metrics"))) == sorted(f"`{name}`" for name in metrics.names())
    assert all(script.said(script.described(name), "Source") for name in metrics.names())
    by_hand = PAGE.split("## Formulas, and how each is deceived")[1].split("\n## ")[0]
    told = [name for cell in first_cells(by_hand) for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(told) == metrics.names()


def test_every_unit_and_fill_is_listed():
    assert first_cells(part("fills")) == [f"`{name}`" for name in impute.__all__]
    called = [
        name for name, each in vars(units).items() if inspect.isfunction(each) and each.__module__ == units.__name__
    ]
    plain = [
        name for name in called if next(iter(inspect.signature(getattr(units, name)).parameters), None) == "images"
    ]
    assert first_cells(part("units")) == [f"`{name}`" for name in plain]


def test_a_row_of_a_metric(script):
    def made(*, size: int = 9, score: str = "logit") -> metrics.Metric:
        """Share of p | q. More.

        Source: Someone 2020
            (arXiv:1).
        Differs: nothing
        at all.
        """

    assert script.sentence(made) == "Share of p | q. More."
    assert script.said(made, "Source") == "Someone 2020 (arXiv:1)"
    assert script.said(made, "Differs") == "nothing at all"
    assert script.spelt([0.0, 0.05, 0.1, 0.15]) == "0 to 0.15 by 0.05"
    assert script.spelt([0.1, 0.2, 0.9]) == "0.1, 0.2, 0.9"
    assert script.spelt([float(2**k) for k in range(10)]) == "10 from 1 to 512"
    blur = {"call": "efface.impute.blur", "kwargs": {"sigma": 5.0, "kernel": 11}}
    assert script.shared(blur) == "blur {sigma: 5.0, kernel: 11}"
    assert script.shared(["efface.erase.post.channel_sum"]) == "[channel_sum]"


def test_the_study_of_the_known_true_map_runs_every_metric():
    study = config.read(ROOT / "configs" / "metrics_patches.yml")
    run = {(entry.metric or entry.name).split(".")[-1] for entry in study.metrics}
    assert run >= {name for name in metrics.names() if metrics.metric(name).subject == "maps"}
    assert study.data.call == "efface.data.patches.patches"
    assert {"random", "true_mask", "centre", "sobel"} <= set(study.map_names())
