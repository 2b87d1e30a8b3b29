"""A method or a metric that fails is said to have failed, with the reason: on the page, in the tables, by status."""

import json

import pandas as pd
import pytest
import torch
from torch import nn

import efface as package
from efface.plug import source
from efface.store.results import Results
from small.messages import names
from small.studies import efface, write_study

FAILS = {
    "raises": ("    if len(images) > 2:\n        raise RuntimeError('too many')\n", "RuntimeError too many late.py:6"),
    "times out": ("    while len(images) > 2:\n        pass\n", "within 0.5 s"),
    "crashes": ("    if len(images) > 2:\n        import os\n        os.kill(os.getpid(), 9)\n", "process ended"),
}
GOOD = """
def brightness(model, images, targets):
    return images.mean(1)
"""


def late(body):
    head = "\ndef brightness(model, images, targets):\n    import torch\n\n"
    return f"{head}{body}    return images.mean(1)\n"


def study(folder, text, **changes):
    methods = [
        {"name": "random", "method": "random"},
        {"name": "good", "method": "mine.brightness"},
        {"name": "late", "method": "late.brightness", "timeout": 0.5},
    ]
    given = {"attribution_methods": methods, "metrics": ["morf"], "executor": {"call": "processes"}}
    return write_study(folder, {"mine": GOOD, "late": text}, **given | changes)


def verdicts(folder):
    table = pd.read_csv(folder / "run/report/verdicts.csv")
    return table.set_index(["metric", "method"])


@pytest.mark.long
@pytest.mark.parametrize("how", FAILS)
def test_a_failed_method_has_its_reason_above_the_numbers_and_no_rank(how, tmp_path):
    body, reason = FAILS[how]
    study(tmp_path, late(body))
    done = efface(tmp_path, "all", "study.yml")
    assert done.code == 1, done.err
    table = verdicts(tmp_path)
    assert table.verdict["morf", "late"] == "failed"
    assert pd.isna(table["rank"]["morf", "late"])
    assert table["rank"]["morf", "good"] >= 1, "the others are ranked without it"
    assert names(table.note["morf", "late"], reason)
    assert done.out.index("On morf, late failed") < done.out.index("accuracy, lower is better")
    page = (tmp_path / "run/report/report.html").read_text()
    assert names(page[page.index('<section id="answer">') : page.index('aria-label="Best')], f"On morf, late {reason}")
    assert f"{tmp_path}/late.py" not in page, "a page that is published tells no folder of its author"
    assert "probes failed. The file failures.log" in page
    assert "not run yet" not in page[: page.index('<section id="study">')]
    for of in ("study.yml", "run"):
        found = json.loads(efface(tmp_path, "status", of, "--json").out)["runs"][0]["failed"]
        assert [(each["method"], each["metric"]) for each in found] == [("late", "morf")]
        assert names(found[0]["reason"], reason)


@pytest.mark.long
def test_a_failure_is_forgotten_when_its_task_has_a_result(tmp_path):
    (tmp_path / "lock").write_text("")
    study(
        tmp_path,
        late("    import pathlib\n    assert len(images) < 3 or not pathlib.Path('lock').exists(), 'locked'\n"),
    )
    assert efface(tmp_path, "all", "study.yml").code == 1
    assert Results(tmp_path / "run").failed
    (tmp_path / "lock").unlink()
    assert efface(tmp_path, "all", "study.yml").code == 0
    assert not Results(tmp_path / "run").failed
    assert verdicts(tmp_path).verdict["morf", "late"] != "failed"


@pytest.mark.long
def test_what_never_ran_is_not_said_to_have_failed(tmp_path):
    study(tmp_path, GOOD)
    assert efface(tmp_path, "all", "study.yml").code == 0
    assert efface(tmp_path, "report", "study.yml", "fractions=[0.3,0.5,0.7]").code == 0
    page = (tmp_path / "run/report/report.html").read_text()
    assert "not run yet" in page
    assert "failed" not in page[page.index('<section id="answer">') : page.index('<section id="study">')]


LEARNER = """
import pathlib

import torch


class Learner:
    def fit(self, model, data, *, seed, max_batch):
        tried = pathlib.Path("tried")
        if tried.exists():
            raise ValueError("cannot learn")
        tried.touch()
        self.learnt = {"size": torch.ones(1)}

    def __call__(self, model, images, targets, *, seeds, max_batch):
        return images.mean(1)
"""


@pytest.mark.long
def test_a_method_that_cannot_learn_has_failed(tmp_path):
    methods = [{"name": "random", "method": "random"}, {"name": "learner", "method": "learner.Learner"}]
    study(tmp_path, GOOD, attribution_methods=methods)
    (tmp_path / "learner.py").write_text(LEARNER)  # the trial before the work is its first try
    assert efface(tmp_path, "all", "study.yml").code == 1
    table = verdicts(tmp_path)
    assert table.verdict["morf", "learner"] == "failed"
    assert names(table.note["morf", "learner"], "cannot learn learner.py:11")


@pytest.mark.long
def test_the_reason_of_a_metric_names_the_metric_and_the_line_of_its_code():
    source.READ.clear()

    def broken(model, images, targets, maps):
        raise KeyError("nope")

    torch.manual_seed(0)
    images = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    labels = torch.arange(12) % 3
    with pytest.warns(UserWarning, match="broken: KeyError"):
        result = package.evaluate(
            network, images, labels, ["gradient"], {"morf": "morf", "broken": broken}, fractions=[0.5], verbose=False
        )
    assert len(result.failures) == 2
    for said in (*result.failures, *result.table.note[result.table.metric == "broken"]):
        assert names(said, "KeyError nope test_failures.py")
        assert "offunction" not in said.lower()
        assert "efface_given" not in said
    assert set(result.table.verdict[result.table.metric == "broken"]) == {"failed"}
    assert result.table["rank"][result.table.metric == "broken"].isna().all()


def test_reasons_of_a_damaged_file_are_left_out(tmp_path):
    results = Results(tmp_path)
    results.fail(["a", "b"], "one\ntwo\x1b[31m")
    assert Results(tmp_path).failed == {"a": "one", "b": "one"}
    (tmp_path / "failures.json").write_text("[1")
    assert Results(tmp_path).failed == {}
