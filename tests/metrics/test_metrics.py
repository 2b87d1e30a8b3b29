"""Metrics: formulas against hand-made scores, shared probes, and a user's own metric in a study."""

import importlib
import inspect
import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from efface.metrics import Metric, Point, metric, names, own_settings, values_of
from efface.metrics.diffroar import diffroar
from efface.metrics.kar import kar
from efface.metrics.lerf import lerf
from efface.metrics.morf import morf
from efface.metrics.probes import Degeneracy, Needs, Perturb, Retrain
from efface.metrics.roar import roar
from efface.plug import source
from efface.plug.call import Call, resolve
from efface.stages.page.report_data import how_of
from efface.stages.run import provenance
from efface.stages.run.curves import planned_run
from efface.stages.run.plan import make_plan
from efface.stages.run.run import Run
from efface.stages.trial.methods import preflight
from efface.store.keys import NUMERICS
from efface.store.results import Score
from efface.study.study import Study, dump
from efface.training.generate import Sampling
from small.caches import forget
from small.messages import words
from small.studies import checked

MEAN, BLUR = Call(call="efface.impute.channel_mean"), Call(call="efface.impute.blur")
SUM = (Call(call="efface.erase.post.channel_sum"),)
EVERY = [roar, kar, diffroar, morf, lerf]


def point(fraction, repeat=0, imputer=MEAN, post=(), unit="pixel"):
    return Point(fraction, repeat, imputer, post, unit)


def score(correct, probability):
    values = {"accuracy": np.array(correct, dtype=bool), "probability": np.array(probability, dtype=np.float32)}
    return Score(values | {"logit": np.log(values["probability"] + np.float32(1e-9))})


# Formulas


@pytest.mark.parametrize("formula", [roar, kar])
def test_retraining_metrics_are_the_accuracy(formula):
    found = formula.value({"erased": score([1, 0, 1, 1], [0.9, 0.2, 0.8, 0.7])})
    assert {name: each.tolist() for name, each in found.items()} == {"accuracy": [1, 0, 1, 1]}
    assert formula.sample == "repeats"


def test_diffroar_is_kar_minus_roar():
    kept, gone = score([1, 1, 1, 0], [0.5] * 4), score([1, 0, 0, 0], [0.5] * 4)
    assert diffroar.value({"kept": kept, "removed": gone})["accuracy"].tolist() == [0, 1, 1, 0]
    here = point(0.3, 2)
    assert diffroar.probes(here) == {"kept": kar.probes(here)["erased"], "removed": roar.probes(here)["erased"]}
    parts = kar.value({"erased": kept})["accuracy"] - roar.value({"erased": gone})["accuracy"]
    assert diffroar.value({"kept": kept, "removed": gone})["accuracy"].tolist() == parts.tolist()


@pytest.mark.parametrize("formula", [morf, lerf])
def test_perturbing_metrics_are_values_of_each_image(formula):
    clean = score([1, 1, 0, 1], [0.5, 0.8, 0.2, 0.0])
    after = score([0, 1, 1, 0], [0.25, 0.8, 0.4, 0.0])
    found = formula.value({"erased": after, "clean": clean})
    assert found["accuracy"].tolist() == [0, 1, 1, 0]
    np.testing.assert_allclose(found["probability"], [0.25, 0.8, 0.4, 0.0])
    # the reference's |p0 - p| / p0 in percent: a rise counts as well, and 0 / 0 is no change
    np.testing.assert_allclose(found["relative_change"], [50, 0, 100, 0], atol=1e-4)
    assert formula.sample == "images"


def test_a_metric_says_which_way_is_better_for_each_of_its_values():
    assert (roar.direction["accuracy"], kar.direction["accuracy"], diffroar.direction["accuracy"]) == (
        "lower",
        "higher",
        "higher",
    )
    assert set(morf.direction) == set(lerf.direction)
    assert all({morf.direction[name], lerf.direction[name]} == {"lower", "higher"} for name in morf.direction)
    for formula in (morf, lerf):
        scores = dict.fromkeys(formula.probes(point(0.5)), score([1], [0.5]))
        assert set(formula.value(scores)) == set(formula.direction)


# Probes


def test_orders():
    for formula, order in ((roar, "most_first"), (morf, "most_first"), (kar, "least_first"), (lerf, "least_first")):
        assert formula.probes(point(0.3))["erased"].erasure.order == order


def test_probes_are_shared_between_metrics_and_at_both_ends_between_all_maps():
    def probes(*formulas, **where):
        return {probe for each in formulas for probe in each.probes(point(**where)).values()}

    assert probes(diffroar, fraction=0.3) == probes(roar, kar, fraction=0.3)
    assert len(probes(*EVERY, fraction=0.3)) == 5  # roar, kar, morf, lerf and the clean network
    for end in (0.0, 1.0):
        ways = [{"post": SUM}, {"unit": "feature"}, {}]
        found = {each for way in ways for each in probes(*EVERY, fraction=end, **way)}
        kinds = sorted(type(each).__name__ for each in found)
        assert kinds == (["Perturb", "Retrain"] if end == 0 else ["Perturb", "Perturb", "Retrain"])
        assert not any(each.needs.maps for each in found)
        assert len({hash(each) for each in found}) == len(found)
    clean = {each for imputer in (MEAN, BLUR) for each in probes(morf, lerf, fraction=0.0, imputer=imputer)}
    assert len(clean) == 1  # nothing is filled


def test_points_differ_where_their_numbers_differ():
    where = itertools.product([0.1, 0.2], [0, 1], [MEAN, BLUR], [(), SUM], ["pixel", "feature"])
    points = [point(*each) for each in where]
    assert len({each.retrain("most_first") for each in points}) == 32
    assert len({each.perturb("most_first") for each in points}) == 16  # a frozen network has no repeats


# Names


def test_every_file_is_a_metric_of_its_name():
    assert {"roar", "kar", "diffroar", "morf", "lerf"} <= set(names())
    assert "formula" not in names()
    for name in names():
        found, path = metric(name), f"efface.metrics.{name}.{name}"
        assert isinstance(found, Metric)
        assert metric(path).direction == found.direction  # the same value, or one made anew by the same function
        assert metric(path) is found or inspect.isfunction(resolve(path))
        assert found.caption.endswith(".")


def answers(*, right: bool = True, times: int = 1) -> Metric:
    """A metric with settings of its own."""
    return Metric(
        probes=lambda point: {"clean": point.clean()},
        value=lambda scores: {"accuracy": scores["clean"].values["accuracy"] * times},
        direction={"accuracy": "higher" if right else "lower"},
        sample="images",
        caption="Nothing.",
        axis="",
        points_for=lambda _: (0.0,),
    )


def test_a_metric_that_is_one_number_has_the_one_point_0():
    assert replace(answers(), points_for=None).points_for((3, 8, 8)) == (0.0,)
    assert replace(answers(), points_for=None, axis="fraction removed").points_for is None


def test_values_of_a_probe_are_shown_as_they_are_or_under_another_name():
    score = Score({"share": np.ones(2), "slope": np.zeros(2), "more": np.zeros(2)})
    found = values_of("cells", "share", steepness="slope")({"cells": score})
    assert {name: each.tolist() for name, each in found.items()} == {"share": [1, 1], "steepness": [0, 0]}


def test_a_function_makes_a_metric_from_its_settings():
    path = f"{__name__}.answers"
    assert metric(path).direction == {"accuracy": "higher"}
    assert metric(path, {"right": False}).direction == {"accuracy": "lower"}
    assert own_settings(path) == ["right", "times"]
    assert own_settings("morf") == []
    with pytest.raises(ValueError, match=words("time times")):
        metric(path, {"time": 3})
    with pytest.raises(ValueError, match=words("times x")):
        metric(path, {"times": "x"})
    with pytest.raises(ValueError, match=words("morf times")):
        metric("morf", {"times": 3})


@pytest.mark.parametrize(("wrong", "meant"), [("roarr", "roar"), ("diffrora", "diffroar"), ("lrf", "lerf")])
def test_a_near_name_is_offered(wrong, meant):
    with pytest.raises(ValueError, match=words(f"{wrong} {meant} morf")):
        metric(wrong)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("zzz", "zzz"),
        ("efface.metrics.roar.roarr", "roarr roar"),
        ("efface.metrics.formula.metric", "function efface.metrics.Metric"),
    ],
)
def test_what_is_no_metric_is_one_clear_error(path, said):
    with pytest.raises(ValueError, match=words(said)):
        metric(path)


# A user's own metric


gap = Metric(
    probes=lambda point: {"most": point.perturb("most_first"), "least": point.perturb("least_first")},
    value=lambda scores: {
        "probability": scores["least"].values["probability"] - scores["most"].values["probability"],
        "either": scores["least"].values["accuracy"] | scores["most"].values["accuracy"],
    },
    direction={"probability": "higher", "either": "higher"},
    sample="images",
    caption="The probability that stays without the least relevant pixels, less that without the most relevant ones.",
    defaults={"fractions": (0.25, 1.0), "imputer": Call(call="efface.impute.constant", kwargs={"value": 0.5})},
)


def random_and_gradient(folder, metrics):
    tree = {
        "out": str(folder / "run"),
        "data": "small.batches.redder",
        "model": "small.networks.one_filter_each",
        "fit": {"epochs": 1, "batch_size": 4},
        "attribution_methods": [
            {"name": "random", "method": "efface.methods.control.random"},
            {"name": "gradient", "method": "efface.methods.gradient.gradient"},
        ],
        "post": ["efface.erase.post.absolute", "efface.erase.post.channel_sum"],
        "metrics": metrics,
        "fractions": [0.5],
        "repeats": 2,
        "executor": "efface.execute.serial",
    }
    return checked(folder, tree)


@pytest.mark.long
def test_a_users_metric_is_measured_by_its_dotted_path(tmp_path):
    grey = {"imputer": {"call": "efface.impute.constant", "kwargs": {"value": 0.5}}, "fractions": [0.25, 1.0]}
    own = {"name": "gap", "metric": "test_metrics.gap"}
    known = [{"name": each, "kwargs": grey} for each in ("morf", "lerf")]
    made = random_and_gradient(tmp_path, [own, *known, "diffroar", "roar", "kar"])
    (tmp_path / "study.yml").write_text(dump(made))
    here = Path(__file__).parent  # as a user would, beside the file that holds the metric
    path = f"sys.path.append({str(here.parent)!r})"  # what the tests share
    run = f"import sys, efface.__main__; {path}; sys.exit(efface.__main__.main(sys.argv[1:]))"
    asked = [sys.executable, "-c", run, "measure", str(tmp_path / "study.yml")]
    done = subprocess.run(asked, cwd=here, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = {(each.metric, each.score, each.method): each for each in planned_run(Run(made)).curves}
    for method in ("random", "gradient"):
        mine = found["gap", "probability", method]
        assert mine.at == (0.0, 0.25, 1.0)
        assert mine.values.shape == (8, 3)
        expected = found["lerf", "probability", method].values - found["morf", "probability", method].values
        np.testing.assert_allclose(mine.values, expected, atol=1e-6)
        np.testing.assert_array_equal(mine.values[:, [0, 2]], 0.0)  # nothing or everything removed: no order
        shared = [found[each, "accuracy", method] for each in ("diffroar", "kar", "roar")]
        assert all(each.at == (0.0, 0.5) and each.values.shape == (2, 2) for each in shared)
        np.testing.assert_allclose(shared[0].values, shared[1].values - shared[2].values)
    rows = [
        row["probe"] for row in Run(made).results.records.values() if row["probe"]["probe"] in ("perturb", "retrain")
    ]
    # clean, all grey, and two orders of two methods; no removal twice, and two orders of two methods twice. A user's
    # metric shares them only while no metric of efface has a raised version, which stands in its keys.
    raised = any(version > 1 for name, version in NUMERICS.items() if name.startswith("metric."))
    assert sum(row["probe"] == "perturb" for row in rows) == (1 + 1 + 4) * (1 + raised)
    assert sum(row["probe"] == "retrain" for row in rows) == 2 + 8


def test_an_unknown_metric_of_a_study_is_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match=words("study.yml metrics.gap test_metrics gapp")):
        random_and_gradient(tmp_path, [{"name": "gap", "metric": "test_metrics.gapp"}])


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("randomisation", {"layers": ["fc9"]}, "layer fc9 Sequential"),
        ("convergence", {"layers": ["1"]}, "layer 1 Sequential"),
        ("grid_pointing_game", {}, "side 2 4"),
        ("infidelity", {"size": 7}, "size 7 6"),
        ("monotonicity", {"steps": 37}, "steps 37 36"),
        (
            "monotonicity",
            {"unit": {"call": "patch", "kwargs": {"size": 3}}},
            "steps 32 4",
        ),
        ("faithfulness_correlation", {"grid": 7}, "grid 7 6"),
        ("morf", {"imputer": {"call": "efface.impute.blur", "kwargs": {"kernel": 4}}}, "kernel 4"),
        ("morf", {"unit": {"call": "patch", "kwargs": {"size": 0}}}, "size 0"),
    ],
)
def test_what_a_metric_cannot_do_with_these_images_is_said_before_any_work(tmp_path, name, settings, said):
    with pytest.raises(ValueError, match=words(f"metrics.{name} {said}")):
        preflight(planned_run(Run(random_and_gradient(tmp_path, [{"name": name, "kwargs": settings}]))))


def test_the_degenerate_are_looked_for_as_the_first_metric_that_erases_ranks_them(tmp_path):
    probes = {cell.probe for cell in make_plan(Run(random_and_gradient(tmp_path, ["infidelity", "morf"]))).tasks}
    found = [(each.unit, len(each.post)) for each in probes if isinstance(each, Degeneracy)]
    assert found == [("pixel", 2)]


def test_a_metric_that_asks_about_another_class_says_so(tmp_path):
    run = Run(random_and_gradient(tmp_path, ["grid_pointing_game", "di_full", "convergence", "morf"]))
    assert [how_of(planned_run(run), entry)["explain"] for entry in run.study.metrics] == [
        "true",
        "true",
        "none",
        "predicted",
    ]


def test_probes_of_metrics_are_perturbations_and_retrainings():
    kinds = {type(probe) for each in EVERY for probe in each.probes(point(0.5)).values()}
    assert kinds == {Perturb, Retrain}


# What the key of a number holds


def test_the_key_of_a_number_holds_the_versions_of_what_it_passes_through(tmp_path, monkeypatch):
    retrained = {"draws", "store", "erase", "train", "evaluate", "measure"}
    assert set(provenance.measured_areas(Needs(network=False))) == retrained
    assert set(provenance.measured_areas(Needs())) == retrained - {"train"}
    assert {"train", "explain"} < set(provenance.measured_areas(Needs(method=True, training=True)))
    assert "generate" in provenance.measured_areas(Needs(maps=False, samples=Sampling()))
    run = Run(Study.model_validate(KEYED | {"out": str(tmp_path)}))
    raises = {
        "train": {"roar"},
        "metric.pointing_game": {"pointing_game"},
        "metric.roar": {"roar"},
        "method.gradient": {"roar", "morf", "pointing_game"},
        "explain": {"roar", "morf", "pointing_game"},
        "imputer.channel_mean": {"roar", "morf"},
        "post.absolute": {"roar", "morf", "pointing_game"},
        "model.resnet8": {"roar", "morf", "pointing_game"},
        "regularizer.gradient_norm": set(),
    }
    before = metric_keys(run)
    for name, moved in raises.items():
        with monkeypatch.context() as raised:
            raised.setitem(NUMERICS, name, 2)
            after = metric_keys(Run(Study.model_validate(KEYED | {"out": str(tmp_path)})))
        assert {each for each in before if before[each] != after[each]} == moved, name
    assert metric_keys(Run(Study.model_validate(KEYED | {"out": str(tmp_path)}))) == before


def test_the_key_of_a_retraining_holds_what_the_study_says_of_the_network(tmp_path):
    study = KEYED | {"out": str(tmp_path), "metrics": ["roar"], "fractions": [1.0]}
    found = [
        metric_keys(Run(Study.model_validate(study | changes)))["roar"]
        for changes in ({}, {"mean": [0.5] * 3, "std": [0.2] * 3}, {"tokens": {"prefix": 1, "grid": [4, 4]}})
    ]
    assert len(set.union(*found)) == sum(map(len, found)) == 6  # at 0 and at 1, where no map is read


KEYED = {
    "data": {"call": "patches", "kwargs": {"n_train": 8, "n_test": 5, "size": 16}},
    "model": {"call": "resnet8", "kwargs": {"num_classes": 4}},
    "refit": {"epochs": 1, "batch_size": 4, "optimizer": {"call": "torch.optim.SGD", "kwargs": {"lr": 0.1}}},
    "attribution_methods": [{"name": "one", "method": "gradient"}],
    "imputer": "channel_mean",
    "post": ["absolute", "channel_sum"],
    "metrics": ["roar", "morf", "pointing_game"],
    "fractions": [0.3],
    "repeats": 1,
}


def metric_keys(run):
    """The keys of each metric's tasks on maps."""
    return {
        each.name: {
            task.key for curve in make_plan(run).of(each) for point in curve.points for task in point.tasks.values()
        }
        for each in run.study.metrics
    }


def test_the_key_of_a_number_holds_the_code_beside_a_users_probe(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text = "import users_helper_of_key\n\n\nclass Probe:\n    version = {}\n"
    found = []
    for number, version in ((1, 1), (2, 1), (2, 2)):
        (tmp_path / "users_probe_of_key.py").write_text(text.format(version))
        (tmp_path / "users_helper_of_key.py").write_text(f"NUMBER = {number}\n")
        sys.modules.pop("users_probe_of_key", None)
        forget(source)
        found.append(provenance.probe_code(importlib.import_module("users_probe_of_key").Probe, ""))
        importlib.invalidate_caches()
    assert [each["version"] for each in found] == [1, 1, 2]
    assert found[0]["source"] != found[1]["source"]
