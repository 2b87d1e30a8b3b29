"""Each training of a random control has maps of its own; all other maps are the same for all trainings."""

import re

import pandas as pd
import pytest

from efface.stages.run.plan import make_plan
from efface.stages.run.run import Run
from efface.study.study import read
from small.studies import efface, write_study

RANDOM = {"name": "random", "method": "efface.methods.control.random"}
ANEW = {"name": "anew", "method": "efface.methods.control.random_resampled"}
MINE = {"name": "mine", "method": "mine.brightness"}
SOBEL = {"name": "sobel", "method": "efface.methods.control.sobel"}
SOFT = {"name": "soft", "maps": "random", "post": ["efface.erase.post.absolute"]}


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A function that plans a study of these methods. It returns the run and its plan."""
    monkeypatch.syspath_prepend(tmp_path)

    def made(*methods, **changes):
        run = Run(read(write_study(tmp_path, attribution_methods=list(methods), **changes)))
        return run, make_plan(run)

    return made


def maps_read(plan, metric):
    """For each row, the names of the maps that each repeat reads, at a point where something is erased."""
    return {
        curve.view.name: [
            sorted({name for task in points[1].tasks.values() for name, _ in task.reads}) for points in curve.repeats
        ]
        for curve in plan.curves
        if curve.entry.name == metric
    }


def test_each_repeat_of_a_random_control_reads_maps_of_its_own_and_no_other_method_does(planned):
    run, plan = planned(RANDOM, MINE, SOBEL, SOFT, ANEW, metrics=["roar", "morf"], repeats=3)
    assert maps_read(plan, "roar") == {
        "random": [["random"], ["random~2"], ["random~3"]],
        "mine": [["mine"]] * 3,
        "sobel": [["sobel"]] * 3,
        "soft": [["random"], ["random~2"], ["random~3"]],
        "anew": [["anew"]] * 3,
    }
    assert [entry.name for entry in run.entries] == ["random", "random~2", "random~3", "mine", "sobel", "anew"]
    assert [view.name for view in run.views] == ["random", "mine", "sobel", "soft", "anew"]


def test_a_metric_without_training_reads_the_first_draw(planned):
    _, plan = planned(RANDOM, MINE, metrics=["roar", "morf"], repeats=3)
    assert maps_read(plan, "morf") == {"random": [["random"]], "mine": [["mine"]]}
    run, _ = planned(RANDOM, MINE, metrics=["morf"], repeats=3)
    assert [entry.name for entry in run.entries] == ["random", "mine"]


def test_draws_and_repeats_share_no_maps(planned):
    run, plan = planned(RANDOM | {"draws": 2}, metrics=["roar", "morf"], repeats=3)
    read_by = maps_read(plan, "roar")
    assert read_by == {
        "random": [["random"], ["random~3"], ["random~5"]],
        "random~2": [["random~2"], ["random~4"], ["random~6"]],
    }
    assert maps_read(plan, "morf") == {"random": [["random"]], "random~2": [["random~2"]]}
    assert len(run.entries) == 6


def test_the_most_repeats_of_any_metric_decide_how_many_maps_are_made(planned):
    roar = {"name": "often", "metric": "roar", "kwargs": {"repeats": 4}}
    run, plan = planned(RANDOM, metrics=[roar, "kar"], repeats=2)
    assert [entry.name for entry in run.entries] == ["random", "random~2", "random~3", "random~4"]
    assert maps_read(plan, "kar") == {"random": [["random"], ["random~2"]]}


def test_the_first_repeat_has_the_keys_that_it_has_alone_and_the_others_have_keys_of_their_own(planned):
    (_, one), (_, three) = (planned(RANDOM, MINE, metrics=["roar"], repeats=repeats) for repeats in (1, 3))
    keys = [
        {
            (curve.view.name, repeat): [task.key for point in points for task in point.tasks.values()]
            for curve in plan.curves
            for repeat, points in enumerate(curve.repeats)
        }
        for plan in (one, three)
    ]
    assert {name: keys[1][name] for name in keys[0]} == keys[0]
    erased = [key for name, points in keys[1].items() for key in points[1:] if name[0] == "random"]
    assert len({*erased}) == len(erased) == 3 * 2


def test_a_run_makes_the_maps_and_its_page_has_one_row(tmp_path):
    write_study(tmp_path, attribution_methods=[RANDOM, MINE], metrics=["roar"], repeats=3, fractions=[0.5])
    done = efface(tmp_path, "all", "study.yml")
    assert done.code == 0, done.err
    kept = {path.name for path in (tmp_path / "run" / "maps").glob("*.h5")}
    names = {"random", "random~2", "random~3", "mine"}
    assert kept == {f"{name}-{split}.h5" for name in names for split in ("train", "test")}
    summary = pd.read_csv(tmp_path / "run/report/summary.csv")
    assert set(summary[summary.metric == "roar"].method) == {"random", "mine"}
    assert set(summary[summary.metric == "roar"].over) == {"trainings and images"}
    text = (tmp_path / "run/report/report.html").read_text()
    assert "random~2" not in re.sub(r"<pre.*?</pre>", "", text, flags=re.DOTALL)


COUNTED = """
from pathlib import Path

import torch
from efface.methods.control import control


@control(of_chance=True)
def chance(model, images, targets, *, seeds, wrong=False):
    with Path("calls").open("a") as file:
        file.write("x")
    if wrong:
        raise RuntimeError("not today")
    return torch.rand(len(images), *images.shape[2:])
"""


def test_further_draws_are_not_tried_again(tmp_path):
    counts = []
    for repeats in (1, 6):
        chance = {"name": "chance", "method": "counted.chance"}
        write_study(tmp_path, {"counted": COUNTED}, attribution_methods=[chance], metrics=["roar"], repeats=repeats)
        done = efface(tmp_path, "check", "study.yml")
        assert done.code == 0, done.err
        assert f"maps: {2 * repeats} files to extract" in done.out
        counts.append(len((tmp_path / "calls").read_text()))
        (tmp_path / "calls").unlink()
    assert counts[0] == counts[1] > 0


def test_a_control_that_fails_is_named_once(tmp_path):
    chance = {"name": "chance", "method": "counted.chance", "kwargs": {"wrong": True}}
    write_study(tmp_path, {"counted": COUNTED}, attribution_methods=[chance], metrics=["roar"], repeats=3)
    done = efface(tmp_path, "check", "study.yml")
    assert done.code == 1
    assert done.err.count("not today") == 1


ONE_NUMBER = """
from efface.metrics import Metric

alone = Metric(
    probes=lambda point: {"erased": point.retrain("most_first")},
    value=lambda scores: {"accuracy": float(scores["erased"].values["accuracy"].mean())},
    direction={"accuracy": "lower"},
    sample="repeats",
    caption="A new network is trained.",
    family="retraining",
)
"""


@pytest.mark.long
def test_a_retrained_metric_may_return_one_number_and_its_page_says_what_the_interval_leaves_out(tmp_path):
    metrics = ["roar", {"name": "alone", "metric": "own.alone"}]
    changes = {"attribution_methods": [RANDOM, MINE], "metrics": metrics, "repeats": 3, "fractions": [0.5]}
    write_study(tmp_path, {"own": ONE_NUMBER}, **changes)
    assert efface(tmp_path, "check", "study.yml").code == 0
    done = efface(tmp_path, "all", "study.yml")
    assert done.code == 0, done.err
    summary = pd.read_csv(tmp_path / "run/report/summary.csv")
    found = {metric: summary[summary.metric == metric] for metric in ("roar", "alone")}
    assert set(found["roar"].interval) == {"crossed"}
    assert (found["roar"][["low", "high"]].to_numpy() >= 0).all()  # it knows the range of an accuracy
    assert (found["roar"][["low", "high"]].to_numpy() <= 1).all()
    assert found["roar"]["mean"].tolist() == pytest.approx(found["alone"]["mean"].tolist(), rel=1e-6)
    overs = {metric: set(lines.over) for metric, lines in found.items()}
    assert overs == {"roar": {"trainings and images"}, "alone": {"trainings"}}
    text = (tmp_path / "run/report/report.html").read_text()
    said = "leave out what other test images would"
    articles = dict(re.findall(r'<article[^>]*data-metric="(\w+)"(.*?)</article>', text, flags=re.DOTALL))
    assert {metric: said in articles[metric] for metric in overs} == {"roar": False, "alone": True}
