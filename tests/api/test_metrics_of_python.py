"""Metrics from Python: words, entries, metrics as values, functions of image and map."""

import numpy as np
import pytest
import torch
from torch import nn

import efface
from efface.api.metrics import metric_entries
from efface.metrics import values_of
from small.messages import names

IMAGES = torch.randint(0, 256, (12, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
SHORT = {"fractions": [0.3, 0.7], "verbose": False}


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)).eval()


NETWORK = network()
LABELS = NETWORK(IMAGES.float() / 255).argmax(1).detach()


def on_the_left(model, images, targets, maps):
    """Share of the map's magnitude in the left half."""
    assert images.shape[1:] == (3, 8, 8)
    assert images.max() <= 1
    assert (model(images).argmax(1) == targets).all()
    return maps.abs()[..., :4].sum((1, 2)) / maps.abs().sum((1, 2))


def left(model, images, targets):
    found = torch.zeros_like(images[:, 0])
    found[:, :, :3] = images[:, 0, :, :3] + 0.1
    return found


def measured(metrics, **more):
    return efface.evaluate(NETWORK, IMAGES, LABELS, {"left": left, "gradient": "gradient"}, metrics, **SHORT | more)


def test_a_function_is_a_metric_with_a_value_for_each_image():
    found = measured([on_the_left])
    table = found.table.set_index("method")
    assert table.value["left"] == 1.0
    maps = efface.maps(NETWORK, IMAGES, LABELS, ["gradient"], verbose=False)["gradient"].sum(1)
    wanted = on_the_left(NETWORK, IMAGES.float() / 255, LABELS, maps)
    assert table.value["gradient"] == pytest.approx(float(wanted.mean()), rel=1e-5)
    scores = found.scores[found.scores.method == "gradient"]
    np.testing.assert_allclose(scores.value, wanted.numpy(), rtol=1e-5)
    assert set(table.better) == {"higher"}
    assert "magnitude in the left half." in found.report().read_text()


@pytest.mark.long
def test_the_direction_of_a_function_decides_who_is_better():
    higher, lower = (
        measured([efface.metric(on_the_left, "left_half", better=better)]).table.set_index("method")
        for better in ("higher", "lower")
    )
    assert higher.gain["left"] == pytest.approx(-lower.gain["left"])
    assert higher.gain["left"] > 0
    assert set(higher.metric) == {"left_half"}
    assert set(measured({"x": efface.metric(on_the_left, better="none")}).table.verdict) <= {
        "described, not judged",
        "the reference",
    }


@pytest.mark.long
def test_a_metric_is_a_value():
    own = efface.Metric(
        probes=lambda point: {"erased": point.perturb("most_first")},
        value=values_of("erased", "probability"),
        direction={"probability": "lower"},
        sample="images",
        caption="Own.",
    )
    one, two = (measured(metrics).table for metrics in ({"mine": own}, [efface.metric("morf", judge_by="probability")]))
    assert set(one.metric) == {"mine"}
    np.testing.assert_array_equal(one.value, two.value)


@pytest.mark.long
def test_settings_of_a_word_are_those_of_an_entry():
    by_value = measured([efface.metric("morf", "grey", imputer={"call": "constant", "kwargs": {"value": 0.5}})])
    entry = {"name": "grey", "metric": "morf", "kwargs": {"imputer": {"call": "constant", "kwargs": {"value": 0.5}}}}
    np.testing.assert_array_equal(by_value.table.value, measured([entry]).table.value)
    plain = measured("morf")
    assert not np.array_equal(plain.table.value, by_value.table.value)


@pytest.mark.long
def test_another_metric_function_is_measured_anew_in_the_same_folder(tmp_path):
    weight = 1.0
    mine = lambda model, images, targets, maps: weight * maps.flatten(1).sum(1)  # noqa: E731
    first = measured({"mine": mine}, out=tmp_path / "run").table.value
    weight = 3.0
    second = measured({"mine": mine}, out=tmp_path / "run").table.value
    np.testing.assert_allclose(second, 3 * first, rtol=1e-5)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ("morf", [{"name": "morf"}]),
        (["morf", {"name": "lerf"}], [{"name": "morf"}, {"name": "lerf"}]),
        ({"name": "morf"}, [{"name": "morf"}]),
        ({"a": "morf"}, [{"name": "a", "metric": "morf"}]),
        ("my.own.metric", [{"name": "metric", "metric": "my.own.metric"}]),
    ],
)
def test_every_form_is_an_entry(metrics, expected):
    assert metric_entries(metrics) == expected


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([lambda *_: 0], "a lambda has no name give one"),
        ([3], "metric 3 is of type int expected a name"),
        ({"a": 3}, "metric a is of type int expected a name an entry"),
        ([{"name": "morf", "setting": 3}], "metric unknown key 'setting' name metric kwargs judge_by"),
        ("mrof", "no metric 'mrof' did you mean 'morf'"),
    ],
)
def test_what_is_no_metric_is_one_clear_error(metrics, message):
    with pytest.raises(ValueError, match=r"metric") as refused:
        measured(metrics)
    assert names(str(refused.value), message)


def test_a_function_with_a_wrong_shape_is_said():
    with pytest.warns(UserWarning, match="expected one number for each image"):
        found = measured({"mine": lambda model, images, targets, maps: maps})
    assert found.failures


def test_better_is_for_functions_alone():
    with pytest.raises(ValueError, match="better is the direction of a function's value"):
        efface.metric("morf", better="lower")
