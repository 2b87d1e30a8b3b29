"""A study that decides as it measures: what a round runs, when it stops, and what it says."""

import json
import signal

import numpy as np
import pytest

from efface.metrics.probes.block import image_order
from efface.stages.run.curves import planned_run
from efface.stages.run.plan import make_plan
from efface.stages.run.rounds import needed, standing, wanted
from efface.stages.run.run import Run
from efface.store.results import Results
from efface.study.study import read
from efface.study.yaml_file import InvalidStudyError
from small.messages import words
from small.studies import efface, write_study
from small.tiers import first_short

RANDOM = {"name": "random", "method": "efface.methods.control.random"}
OTHER = {"name": "other", "maps": "random", "post": ["efface.erase.post.absolute"]}  # ranks as `random` does
MINE = {"name": "mine", "method": "mine.brightness"}
QUADRANTS = """
import torch
from efface.base.types import Split

def split(count, seed):
    draw = torch.Generator().manual_seed(seed)
    images, targets = torch.randint(0, 90, (count, 3, 16, 16), generator=draw), torch.arange(count) % 4
    for row in range(count):  # the class is where the bright square lies
        top, left = 8 * (int(targets[row]) // 2), 8 * (int(targets[row]) % 2)
        images[row, :, top + 2 : top + 6, left + 2 : left + 6] += 150
    return Split(images.byte(), targets)

def quadrants():
    return {"train": split(64, 1), "test": split(90, 2)}
"""
IMAGES = (20, 27, 36, 48, 64, 90)
FIT = {"epochs": 8, "batch_size": 16, "optimizer": {"call": "torch.optim.Adam", "kwargs": {"lr": 1e-2}}, "crop": 1}
STUDY = {
    "data": "squares.quadrants",
    "fit": FIT,
    "attribution_methods": [RANDOM, MINE],
    "metrics": ["morf"],
    "decide": {"level": 0.05},
}


def study_of(folder, **changes):
    return write_study(folder, {"squares": QUADRANTS}, **STUDY | changes)


@pytest.fixture
def run_of(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return lambda **changes: Run(read(study_of(tmp_path, **changes)))


def measured(folder, *words_):
    found = efface(folder, *(words_ or ("all", "study.yml")))
    assert found.code == 0, found.err
    return found


def test_the_plan_lists_a_probe_for_each_block_and_the_rounds_of_repeats(run_of):
    plan = make_plan(run_of(metrics=["morf", "roar", "complexity"], repeats=7))
    looks = {curve.entry.name: curve.looks for curve in plan.curves}
    assert looks["morf"].after == IMAGES
    assert looks["morf"].by == "spending"
    assert looks["roar"].after == (3, 5, 7)
    assert looks["roar"].by == "spending"
    assert looks["complexity"] is None  # it judges nothing
    morf = next(curve for curve in plan.curves if curve.entry.name == "morf")
    ends = [(point.tasks["erased"].probe.start, point.tasks["erased"].probe.stop) for point, *_ in morf.repeats]
    assert ends == list(zip((0, *IMAGES), IMAGES, strict=False))


def test_without_decide_keys_and_probes_are_those_of_before(run_of):
    fixed, rounds = make_plan(run_of(decide=None)), make_plan(run_of())
    assert all(curve.looks is None for curve in fixed.curves)
    assert not {task.key for task in fixed.tasks} & {task.key for task in rounds.tasks} - set_of_conditions(fixed)


def set_of_conditions(plan):
    return {task.key for task in plan.conditions.values()}


def test_the_order_of_the_images_is_a_shuffle_of_the_seed():
    one, again, other = image_order(0, 50), image_order(0, 50), image_order(1, 50)
    assert one.tolist() == again.tolist() != other.tolist()
    assert sorted(one.tolist()) == list(range(50))
    assert one.tolist() != list(range(50))


def test_a_study_stops_when_its_methods_are_told_apart(tmp_path, run_of):
    run_of()
    found = measured(tmp_path)
    assert "round 1:" in found.out
    assert "1 of 1 pairs of methods are decided, 0 are open" in found.out
    run = run_of()
    planned = planned_run(run)
    assert len(needed(planned)) < len(planned.plan.tasks)
    assert all(len(curve.values) < 90 for curve in planned.curves if curve.metric == "morf")
    said = measured(tmp_path, "status", "study.yml").out
    assert "1 of 1 pairs of methods are decided" in said
    assert " done, 0 left" in said
    again = measured(tmp_path)
    assert "probes to run" not in again.out
    page = (tmp_path / "run/report/report.html").read_text()
    assert "1 of 1 pairs of methods are told apart." in page
    assert "Not finished" not in page
    other = measured(tmp_path, "report", "run")
    assert "not measured yet" not in other.out
    assert "1 of 1 pairs of methods are told apart." in (tmp_path / "run/report/report.html").read_text()


@pytest.mark.long
def test_what_is_tied_is_measured_whole_and_equals_the_study_without_rounds(tmp_path, run_of):
    tied = {"attribution_methods": [RANDOM, OTHER], "metrics": ["morf"]}
    run = run_of(**tied)
    found = measured(tmp_path)
    assert "0 of 1 pairs of methods are decided, 0 are open, after 100 %" in found.out
    rounds = {curve.method: curve for curve in planned_run(run_of(**tied)).curves if curve.score == "probability"}
    run = run_of(**tied, decide=None, out="fixed")
    measured(tmp_path)
    for curve in planned_run(run_of(**tied, decide=None, out="fixed")).curves:
        if curve.score == "probability":
            in_rounds = rounds[curve.method]
            order = np.argsort(in_rounds.pairs)
            np.testing.assert_allclose(in_rounds.values[order], curve.values, rtol=1e-4, atol=1e-6)
    assert run.folder.name == "fixed"


@pytest.mark.long
@pytest.mark.parametrize("kill_at", first_short(1, [30, 15, 45]))
def test_a_killed_study_decides_the_same(tmp_path, run_of, kill_at):
    run_of(metrics=["morf", "lerf"])
    measured(tmp_path)
    whole = results((tmp_path / "run").rename(tmp_path / "whole"))
    assert efface(tmp_path, "all", "study.yml", kill_at=kill_at).code == -signal.SIGKILL
    measured(tmp_path)
    assert results(tmp_path / "run") == whole


@pytest.mark.long
def test_a_study_that_is_killed_between_its_rounds_does_not_look_finished(tmp_path, run_of):
    run_of(attribution_methods=[RANDOM, OTHER], metrics=["morf"])
    assert efface(tmp_path, "all", "study.yml", kill_at=150).code == -signal.SIGKILL
    planned = planned_run(run_of(attribution_methods=[RANDOM, OTHER], metrics=["morf"]))
    assert min(len(curve.values) for curve in planned.curves if curve.metric == "morf") >= 20
    measured(tmp_path, "report", "run")
    assert "probes are not run yet" in (tmp_path / "run/report/report.html").read_text()
    measured(tmp_path)
    measured(tmp_path, "train", "study.yml")
    measured(tmp_path, "report", "run")
    assert "probes are not run yet" not in (tmp_path / "run/report/report.html").read_text()


def results(folder):
    kept = Results(folder)
    lines = [row for row in kept.records.values() if "n" in row]
    return {
        row["key"]: {name: values.tobytes() for name, values in kept.score(row["key"]).values.items()} for row in lines
    }


@pytest.mark.long
def test_retrained_methods_take_more_repeats_until_they_differ(tmp_path, run_of):
    changes = {"metrics": ["roar"], "repeats": 8, "fractions": [0.7], "attribution_methods": [RANDOM, OTHER, MINE]}
    run_of(**changes)
    measured(tmp_path)
    planned = planned_run(run_of(**changes))
    counts = {curve.method: len(curve.values) for curve in planned.curves if curve.score == "accuracy"}
    assert set(counts.values()) <= {3, 5, 8}
    assert counts["random"] == counts["other"] == 8  # a tie


@pytest.mark.long
def test_a_method_that_fails_stops_no_other(tmp_path, run_of):
    fails = {"name": "fails", "method": "fails.late"}
    text = (
        "def late(model, images, targets):\n"
        "    if len(images) > 2: raise RuntimeError('too many')\n"
        "    return images.mean(1)\n"
    )
    (tmp_path / "fails.py").write_text(text)
    run_of(attribution_methods=[RANDOM, MINE, fails])
    found = efface(tmp_path, "all", "study.yml")
    assert found.code == 1
    run = run_of(attribution_methods=[RANDOM, MINE, fails])
    here = standing(planned_run(run))
    assert [(each.metric, {each.first, each.second}) for each in here.decided] == [
        ("morf", {"random", "mine"}),
    ]
    assert "Not finished" in (tmp_path / "run/report/report.html").read_text()


@pytest.mark.long
def test_only_those_behind_catch_up(tmp_path, run_of):
    """A metric that shares probes may have measured one method further than another."""
    tied = {"attribution_methods": [RANDOM, OTHER], "metrics": ["morf"]}
    run_of(**tied)
    measured(tmp_path)
    run = run_of(**tied)
    curves = {curve.view.name: curve for curve in make_plan(run).curves}
    for task in (task for repeat in curves["other"].repeats[3:] for point in repeat for task in point.tasks.values()):
        if task.view is not None:
            run.results.records.pop(task.key, None)
    found = wanted(planned_run(run))
    assert {task.view.name for task in found if task.view is not None} == {"other"}
    assert {(task.probe.start, task.probe.stop) for task in found} == {(36, 48)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": [0, 1]}, "decide: tells apart methods on one network, but the study has 'seeds'"),
        ({"variants": {"a": {"seed": 1}}}, "decide: tells apart methods on one network, but the study has 'variants'"),
        ({"attribution_methods": [RANDOM | {"draws": 3}, MINE]}, "attribution_methods.random.draws: is 3"),
        ({"decide": {"level": 0}}, "decide.level"),
        ({"decide": {"level": 0.7}}, "decide.level"),
        ({"decide": {"by": "luck"}}, "decide.by"),
        ({"decide": True}, "decide: expected settings, such as {level: 0.05}, found True"),
        ({"decide": 0.05}, "decide: expected settings, such as {level: 0.05}, found 0.05"),
        ({"decide": {"levels": 0.05}}, "decide.levels: unknown key; did you mean 'level'?"),
    ],
)
def test_what_rounds_do_not_hold_for_is_refused(tmp_path, run_of, changes, said):
    with pytest.raises(InvalidStudyError, match=words(said)):
        run_of(**changes)


def test_a_study_without_a_metric_that_can_be_decided_is_refused(run_of):
    plan = make_plan(run_of(metrics=["complexity"]))
    assert "decide: no metric of this study can be measured in rounds" in plan.problems[0]


def test_one_method_has_no_pair_to_decide(tmp_path, run_of):
    plan = make_plan(run_of(attribution_methods=[MINE]))
    assert all(curve.looks is None for curve in plan.curves)
    assert "it takes two methods" in plan.problems[0]


LATE = """
from dataclasses import dataclass
import numpy as np
from efface.metrics import Metric
from efface.metrics.probes import Needs, Score
from efface.metrics.probes.block import image_order

@dataclass(frozen=True)
class Late:
    needs = Needs(blocks=True)
    def identity(self): return {"probe": "late"}
    def cost(self, images, training): return float(images["test"])
    def __call__(self, case):
        case.advance(float(len(case.test_rows)))
        values = case.maps["test"].take(case.test_rows).flatten(1).float().mean(1).numpy()
        first = set(image_order(case.seed, 90)[:25].tolist())
        return Score({"x": np.array([np.nan if int(row) in first else x for row, x in zip(case.test_rows, values)])})

def metric(value, ranges={}):
    return Metric(probes=lambda point: {"all": Late()}, value=lambda scores: {"x": value(scores["all"].values["x"])},
                  direction={"x": "higher"}, sample="images", caption="", axis="", ranges=ranges)

late = metric(lambda x: x)
short = metric(lambda x: np.ones(5))
wide = metric(lambda x: x * 0 + 7, {"x": (0.0, 1.0)})
"""


@pytest.mark.long
def test_a_metric_without_a_value_in_its_first_rounds_goes_on(tmp_path, run_of):
    (tmp_path / "late.py").write_text(LATE)
    run_of(metrics=[{"name": "late", "metric": "late.late"}])
    found = measured(tmp_path)
    assert "round 1: 0 of 1 pairs of methods are decided, 1 are open" in found.out
    curves = list(planned_run(run_of(metrics=[{"name": "late", "metric": "late.late"}])).curves)
    assert all(len(each.values) > 25 for each in curves if each.metric == "late")


@pytest.mark.long
@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("short", "metrics.short: its value 'x' has 5 numbers for a block of 20 images"),
        ("wide", "metrics.wide: its value 'x' is 7 in"),
    ],
)
def test_values_that_do_not_fit_their_images_or_their_range_are_refused(tmp_path, run_of, metric, said):
    (tmp_path / "late.py").write_text(LATE)
    run_of(metrics=[{"name": metric, "metric": f"late.{metric}"}])
    found = efface(tmp_path, "all", "study.yml")
    assert found.code == 1
    assert said in found.err


def test_check_allows_for_rounds_in_what_a_study_can_show(tmp_path, run_of):
    run_of(metrics=["morf"], decide={"by": "betting"})
    assert "a difference of at best 0.4" in measured(tmp_path, "check", "study.yml").out
    study_of(tmp_path, metrics=["morf"], decide={"by": "spending"})
    assert ", in 6 rounds" in measured(tmp_path, "check", "study.yml").out


@pytest.mark.long
def test_a_probe_that_only_claims_to_measure_blocks_is_named(tmp_path, run_of):
    text = """
from dataclasses import dataclass
import numpy as np
from efface.metrics import Metric
from efface.metrics.probes import Needs, Score

@dataclass(frozen=True)
class Liar:
    needs = Needs(blocks=True)
    def identity(self): return {"probe": "liar"}
    def cost(self, images, training): return float(images["test"])
    def __call__(self, case):
        case.advance(float(len(case.data["test"])))
        return Score({"x": np.arange(len(case.data["test"]), dtype=float)})

lies = Metric(probes=lambda point: {"all": Liar()}, value=lambda scores: {"x": scores["all"].values["x"]},
              direction={"x": "higher"}, sample="images", caption="", axis="")
"""
    (tmp_path / "liar.py").write_text(text)
    study_of(tmp_path, metrics=[{"name": "lies", "metric": "liar.lies"}])
    found = efface(tmp_path, "all", "study.yml")
    assert found.code == 1
    assert "Liar states Needs(blocks=True), but its score 'x' has 90 values for a block of 20 images" in found.err


def test_check_says_what_a_study_can_show_and_warns_of_too_few_repeats(tmp_path, run_of):
    run_of(decide=None, metrics=["morf", "roar"], repeats=2)
    found = measured(tmp_path, "check", "study.yml")
    assert "power: with 90 test images, the study shows a difference of 0.3" in found.out
    assert "metrics.roar: 2 repeats have no test, so there will be no verdict; take" in found.out
    study_of(tmp_path, decide=None, metrics=["roar", "kar", "diffroar"], repeats=3, attribution_methods=[RANDOM, MINE])
    found = measured(tmp_path, "check", "study.yml")
    assert "metrics.roar: 3 repeats show a difference only from" in found.out
    study_of(tmp_path, metrics=["morf"])
    assert "probes: at most" in measured(tmp_path, "check", "study.yml").out


@pytest.mark.long
def test_the_plan_as_data_keeps_the_rounds(tmp_path, run_of):
    run_of()
    measured(tmp_path)
    kept = json.loads((tmp_path / "run/plan.json").read_text())
    assert kept["curves"][0]["looks"] == [list(IMAGES), "spending", 0.05]
    assert len(kept["curves"][0]["repeats"]) == len(IMAGES)
