"""Points that are evenly spaced in the logarithm of the number of removed units."""

import numpy as np
import pytest

from efface.erase.ranking import count
from efface.stages.extract import extract
from efface.stages.run.curves import planned_run
from efface.stages.run.plan import make_plan
from efface.stages.run.points import axis_points, log_fractions
from efface.stages.run.run import Run
from efface.stages.train import train
from efface.stages.work.measuring import measure_missing
from efface.study.metric_entry import MetricEntry
from small.messages import words
from small.studies import checked


@pytest.mark.parametrize(
    ("asked", "units", "numbers"),
    [
        (4, 64, [0, 1, 4, 16, 64]),
        (3, 100, [0, 1, 10, 100]),
        (15, 5, [0, 1, 2, 3, 4, 5]),  # equal numbers count once
        (2, 1, [0, 1]),
        (15, 25, [0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25]),
    ],
)
def test_numbers_of_units_by_hand(asked, units, numbers):
    np.testing.assert_allclose(log_fractions(asked, units), [number / units for number in numbers], rtol=1e-15)


@pytest.mark.parametrize("units", [7, 96, 1024, 3072, 150_528])
def test_each_fraction_removes_a_whole_number_of_units_and_each_step_is_a_factor(units):
    found = log_fractions(15, units)
    numbers = [count(fraction, units) for fraction in found]
    assert (numbers[0], numbers[1], numbers[-1]) == (0, 1, units)
    assert numbers == sorted(set(numbers))
    np.testing.assert_allclose(np.array(found) * units, numbers, rtol=1e-12)
    if units > 1000:
        factors = np.diff(np.log(numbers[-6:]))
        np.testing.assert_allclose(factors, np.log(units) / 14, rtol=0.02)


def study(folder, metrics, **changes):
    tree = {
        "out": str(folder / "run"),
        "data": {"call": "efface.data.patches.patches", "kwargs": {"n_train": 24, "n_test": 8, "size": 16}},
        "model": {"call": "small.networks.one_convolution", "kwargs": {"channels": 8, "places": 4}},
        "fit": {"epochs": 1, "batch_size": 8},
        "attribution_methods": [
            {"name": "random", "method": "efface.methods.control.random"},
            {"name": "gradient", "method": "efface.methods.gradient.gradient"},
        ],
        "post": ["absolute", "channel_sum"],
        "metrics": metrics,
        "executor": "efface.execute.serial",
    }
    return checked(folder, tree | changes)


@pytest.mark.parametrize(
    ("unit", "units"),
    [
        ("pixel", 256),
        ("feature", 768),
        ({"call": "patch", "kwargs": {"size": 4}}, 16),
        ({"call": "patch", "kwargs": {"size": 3}}, 36),
    ],
)
def test_the_units_are_those_of_the_metric(tmp_path, unit, units):
    entry = {"name": "srg", "kwargs": {"log_points": 5, "unit": unit}}
    run = Run(study(tmp_path, [entry], post=["absolute"] if unit == "feature" else ["absolute", "channel_sum"]))
    assert axis_points(run, run.study.metrics[0]) == log_fractions(5, units)


def test_superpixels_are_counted_on_the_first_image(tmp_path):
    unit = {"call": "superpixel", "kwargs": {"segments": 9}}
    run = Run(study(tmp_path, [{"name": "morf", "kwargs": {"log_points": 4, "unit": unit}}]))
    found = axis_points(run, run.study.metrics[0])
    (units,) = run.group_counts.values()
    assert 1 < units < 30
    assert found == log_fractions(4, units)


@pytest.mark.long
def test_curves_of_a_study_share_their_probes(tmp_path):
    names = ("morf", "lerf", "srg", "insertion", "deletion")
    grey = {"log_points": 4, "imputer": "channel_mean"}
    made = study(tmp_path, [{"name": name, "kwargs": grey} for name in names])
    train(made)
    assert extract(made) == []
    run = Run(made)
    assert measure_missing(planned_run(run)) == []
    curves = {(each.metric, each.score, each.method): each for each in planned_run(run).curves}
    for name in names:
        assert curves[name, "probability", "gradient"].at == log_fractions(4, 256)
    morf, lerf, srg = (curves[name, "probability", "gradient"].values for name in names[:3])
    np.testing.assert_allclose(lerf - morf, srg, atol=1e-12)
    np.testing.assert_array_equal(curves["deletion", "probability", "gradient"].values, morf)
    inside = len(log_fractions(4, 256)) - 2
    probes = [task for task in make_plan(run).tasks if task.probe.identity()["probe"] == "perturb"]
    assert len(probes) == 2 + inside * (2 * 2 + 1)  # two orders of two methods, and the random order


@pytest.mark.parametrize(
    ("name", "kwargs", "said"),
    [
        ("srg", {"log_points": 4, "fractions": [0.5]}, "kwargs.log_points fractions keep one"),
        ("degradation", {"log_points": 4}, "kwargs.log_points patches removed drop"),
        ("completeness", {"log_points": 4}, "kwargs.log_points one number drop"),
        ("f_fidelity", {"log_points": 4}, "kwargs.log_points share taken as explanation drop"),
        ("roar", {"log_points": 4}, "kwargs.log_points trainings fractions"),
        ("srg", {"log_points": 1}, "log_points greater 2"),
    ],
)
def test_where_they_mean_nothing_they_are_refused(name, kwargs, said):
    with pytest.raises(ValueError, match=words(said)):
        MetricEntry(name=name, kwargs=kwargs)


def test_a_unit_that_the_network_lacks_is_told_with_the_metric(tmp_path):
    run = Run(study(tmp_path, [{"name": "srg", "kwargs": {"log_points": 4, "unit": "token"}}]))
    (problem,) = make_plan(run).problems
    assert problem.startswith("metrics.srg: ")


def groups_that_fail(images):
    raise RuntimeError("no groups here")


def test_a_unit_that_fails_is_told_with_the_metric(tmp_path):
    unit = "test_log_points.groups_that_fail"
    (problem,) = make_plan(Run(study(tmp_path, [{"name": "srg", "kwargs": {"log_points": 4, "unit": unit}}]))).problems
    assert problem == f"metrics.srg: unit: {unit} fails: RuntimeError: no groups here"
