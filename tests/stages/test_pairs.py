"""`check` tries each method on the networks that metrics hand it in place of the given one."""

import pytest

from small.messages import names
from small.studies import efface, write_study

METHODS = """
CALLS = []


def plain(model, images, targets):
    CALLS.append(type(model).__name__)
    return images.sum(1) + model(images).sum()


def by_place(model, images, targets):
    return images.sum(1) + model[0](images).sum()  # an nn.Sequential, and nothing that wraps one


def by_type(model, images, targets):
    return plain(model, images, targets) if type(model).__name__ == "Sequential" else 1 / 0
"""


def check(folder, method: str, metrics: list, **changes):
    methods = [{"name": "random", "method": "random"}, {"name": "theirs", "method": f"theirs.{method}"}]
    write_study(folder, {"theirs": METHODS}, attribution_methods=methods, metrics=metrics, **changes)
    return efface(folder, "check", "study.yml")


@pytest.mark.parametrize("method", ["by_place", "by_type"])
def test_a_method_that_fails_on_the_network_that_a_metric_hands_it_is_refused(tmp_path, method):
    ended = check(tmp_path, method, ["convergence", "morf"])
    assert ended.code == 1
    (line,) = ended.err.strip().splitlines()
    assert names(line, "metrics.convergence, theirs: another network theirs.py drop this method or the metric")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["plain", "by_place", "by_type"])
@pytest.mark.parametrize(
    "metric", ["randomisation", "efficient_randomisation", "data_randomisation", "max_sensitivity"]
)
def test_a_network_of_the_same_kind_is_no_hindrance(tmp_path, method, metric):
    ended = check(tmp_path, method, [metric])
    assert ended.code == 0, ended.err


def test_a_method_that_lacks_some_points_is_no_fault(tmp_path):
    entry = {"name": "cam", "method": "grad_cam", "kwargs": {"layer": "0"}}
    write_study(tmp_path, attribution_methods=[entry], metrics=["convergence"])
    ended = efface(tmp_path, "check", "study.yml")
    assert ended.code == 0, ended.err


def test_maps_of_the_second_network_are_refused_with_a_metric_that_redraws_the_first(tmp_path):
    entry = {"name": "theirs", "method": "gradient", "network": "second"}
    second = {"model": {"call": "net.network"}}
    write_study(tmp_path, attribution_methods=[entry], metrics=["randomisation"], second_network=second)
    ended = efface(tmp_path, "check", "study.yml")
    assert ended.code == 1
    assert names(ended.err, "metrics.randomisation, theirs: second network's")
