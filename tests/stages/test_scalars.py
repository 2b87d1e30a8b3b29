"""TensorBoard: the event files hold the curves of every training, and no result depends on them."""

import json

import pytest

from efface.stages.measure import measure
from efface.study.study import check

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

EPOCHS, STEPS = 3, 3  # 60 images, a quarter validates: 45 in batches of 16, 16 and 13
CURVES = {"loss", "training_accuracy", "validation_accuracy", "validation_loss"}


def measured(tmp_path, *, tensorboard):
    tree = {
        "out": str(tmp_path / "run"),
        "data": {"call": "digits", "kwargs": {"limit": 60, "test_limit": 20, "validation": 0.25}},
        "model": {"call": "resnet8", "kwargs": {"in_channels": 1}},
        "fit": {"epochs": EPOCHS, "batch_size": 16, "tensorboard": tensorboard},
        "attribution_methods": [{"name": "random", "method": "random"}],
        "metrics": ["roar"],
        "fractions": [0.5],
        "repeats": 1,
        "executor": "serial",
        "device": "cpu",
    }
    assert measure(check(tree, tmp_path / "study.yml")) == []
    lines = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    return {line["key"]: line for line in lines}


def scalars_of(folder):
    read = event_accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: {each.step: each.value for each in read.Scalars(tag)} for tag in read.Tags()["scalars"]}


@pytest.mark.long
def test_event_files_hold_accuracies_losses_and_the_loss_of_each_batch(tmp_path):
    results = measured(tmp_path, tensorboard=True)
    folders = {folder.name: scalars_of(folder) for folder in (tmp_path / "run" / "tensorboard").iterdir()}
    trained = next(key.removeprefix("train-") for key in results if key.startswith("train-"))
    retrained = {name for name in folders if name in results}
    assert {*folders} == {f"network-{trained}", *retrained}
    assert retrained  # of ROAR, by the keys of their results
    for scalars in folders.values():
        assert {*scalars} == {*CURVES, "batch_loss"}
        assert all([*scalars[name]] == [1, 2, 3] for name in CURVES)
        assert [*scalars["batch_loss"]] == list(range(1, EPOCHS * STEPS + 1))
    of_network, line = folders[f"network-{trained}"], results[f"train-{trained}"]
    assert [*of_network["loss"].values()] == pytest.approx(line["losses"], rel=1e-6)
    assert [*of_network["validation_accuracy"].values()] == pytest.approx(line["validation_accuracies"])
    first = [of_network["batch_loss"][step] for step in (1, 2, 3)]
    assert sum(n * loss for n, loss in zip((16, 16, 13), first, strict=True)) / 45 == pytest.approx(line["losses"][0])
    rights = [value * 45 for value in of_network["training_accuracy"].values()]
    assert rights == pytest.approx([round(each) for each in rights], abs=1e-3)


@pytest.mark.long
def test_results_are_the_same_without(tmp_path):
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    one, other = measured(tmp_path / "with", tensorboard=True), measured(tmp_path / "without", tensorboard=False)
    assert not (tmp_path / "without" / "run" / "tensorboard").exists()
    assert {*one} == {*other}
    alike = ("losses", "validation_accuracies", "terms", "epoch_kept")
    assert all(one[key].get(name) == other[key].get(name) for key in one for name in alike)
