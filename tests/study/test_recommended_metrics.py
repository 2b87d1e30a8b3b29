"""`metrics: recommended`: what it stands for, with and without training, and what a study and `check` say of it."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import efface
from efface import metrics
from efface.__main__ import main
from efface.study import recommended_metrics as short
from efface.study.study import InvalidStudyError, check, dump, read
from small.studies import STUDY, write_study

WITHOUT = ["morf", "lerf", "srg", "randomisation", "random_logit"]
WITH = [*WITHOUT, "roar", "kar"]
PAGE = (Path(__file__).parents[2] / "docs" / "choosing.md").read_text()


def study(tmp_path, **changes):
    return read(write_study(tmp_path, metrics="recommended", **changes))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_study_that_trains_has_the_retrained_metrics_and_one_that_does_not_has_none(tmp_path):
    assert study(tmp_path).metric_names() == WITH
    assert study(tmp_path, fit=None).metric_names() == WITHOUT
    assert study(tmp_path, fit=None, refit=STUDY["fit"]).metric_names() == WITH


def test_the_list_guards_what_it_promises(tmp_path):
    entries = {entry.name: entry for entry in study(tmp_path).metrics}
    assert entries["morf"].opposes(entries["lerf"])
    families = {entry.formula.family for entry in entries.values()}
    assert {"erasure", "randomisation", "retraining"} <= families
    assert [name for entry in entries.values() for name in entry.formula.read_with] == []
    assert {entry.formula.better for entry in entries.values() if hasattr(entry.formula, "better")} <= {
        "higher",
        "lower",
    }


def test_the_resolved_study_names_the_metrics_and_is_read_as_the_same_study(tmp_path):
    found = study(tmp_path)
    tree = yaml.safe_load(dump(found))
    assert [entry["name"] for entry in tree["metrics"]] == WITH
    assert "recommended" not in dump(found)
    assert check(tree, tmp_path / "study.yml") == found


def test_the_word_stands_in_a_list_and_in_variants_and_own_settings_stay(tmp_path):
    own = {"name": "lerf", "kwargs": {"imputer": "blur"}}
    found = read(write_study(tmp_path, metrics=["deletion", "recommended", own, "recommended"]))
    assert found.metric_names() == ["deletion", *[name for name in WITH if name != "lerf"], "lerf"]
    assert found.metrics[-1].kwargs.imputer.call == "efface.impute.blur"
    several = read(write_study(tmp_path, variants={"a": {}, "b": {"metrics": "recommended", "fit": None}}))
    assert [each.name for each in several.parts()["b"][0].metrics] == WITHOUT
    assert read(write_study(tmp_path), ["metrics=recommended"]).metric_names() == WITH
    assert read(write_study(tmp_path)).with_metrics(["recommended"]).metric_names() == WITH


def test_maps_of_a_file_are_not_made_again(tmp_path):
    entries = [*STUDY["attribution_methods"], {"name": "theirs", "file": "theirs.npz"}]
    found = study(tmp_path, attribution_methods=entries, fit=None)
    assert found.metric_names() == ["morf", "lerf", "srg"]
    said = list(short.said(found.model_dump()))
    assert said[0] == "recommended stands for morf, lerf, srg"
    assert said[-1] == short.NO_METHOD


def test_a_metric_of_that_name_of_ones_own_and_a_wrong_list_stay_what_they_are(tmp_path):
    entry = {"name": "recommended", "metric": "efface.metrics.morf.morf"}
    assert read(write_study(tmp_path, metrics=[entry])).metric_names() == ["recommended"]
    with pytest.raises(InvalidStudyError, match="there is no metric 'recomended'"):
        read(write_study(tmp_path, metrics=["recomended"]))


def test_check_says_what_the_word_stands_for_and_why(tmp_path, capsys):
    write_study(tmp_path, metrics="recommended")
    assert main(["check", "study.yml"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("metrics: ")]
    assert said[0] == f"metrics: recommended stands for {', '.join(WITH)}"
    assert [line.split()[1] for line in said[1:-1]] == WITH  # a line with the reason for each
    assert said[-1] == f"metrics: {short.CAUTION}"


def test_check_says_nothing_of_the_word_where_the_list_is_another(tmp_path):
    assert list(short.said(read(write_study(tmp_path)).model_dump())) == []
    other = [*[name for name in WITH if name != "randomisation"], "randomisation"]
    assert list(short.said(read(write_study(tmp_path, metrics=other)).model_dump())) == []


def test_the_page_has_the_list_and_names_no_metric_that_does_not_exist():
    (section,) = re.findall(r"^### The recommended list\n(.*?)^## ", PAGE, re.DOTALL | re.MULTILINE)
    table = section.split("**Cautions")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == WITH
    rest = re.findall(r"^\| (`.*?) \|", section.split("**What is not")[1], re.MULTILINE)
    left_out = re.findall(r"`(\w+)`", " ".join(rest))
    assert set(left_out) <= set(metrics.names()) - set(WITH)


@pytest.mark.long
def test_the_list_is_measured_whole_from_python():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(16, 3))
    result = efface.evaluate(
        model, torch.rand(12, 3, 8, 8), torch.arange(12) % 3, ["gradient"], "recommended", verbose=False
    )
    assert list(dict.fromkeys(result.table.metric)) == WITHOUT
    assert result.failures == ()
    random = result.table.set_index(["metric", "method"]).value
    assert random["randomisation", "random"] == pytest.approx(1)  # noise of its own seed ignores the weights
    assert random["randomisation", "gradient"] < 0.9
