"""A study whose trainings several devices share: its results, what is refused, and that no process is left behind."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from efface.execute import processors
from efface.stages.check import check
from efface.stages.run.run import Run
from efface.stages.train import train
from efface.stages.trial.devices import try_devices
from efface.study.study import read
from small.messages import names, words
from small.studies import STUDY, efface, ended, start, write_study

FIT = STUDY["fit"] | {"devices": 2, "batch_size": 16}
SLOW = """
import time


def slow(images, seeds, *, seconds: float = 0.0):
    time.sleep(seconds)
    return images
"""


def rows(folder):
    lines = (folder / "run" / "results.jsonl").read_text().splitlines()
    return {line["key"]: line for line in map(json.loads, lines)}


@pytest.mark.long
def test_two_devices_give_the_results_of_one_and_make_nothing_stale(tmp_path):
    """The network, and a retrained one. Maps and probes of a network have its bits in their keys."""
    trained, retrained, scores = {}, {}, {}
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        folder.mkdir()
        random = [STUDY["attribution_methods"][0]]
        choices = {"attribution_methods": random, "metrics": ["roar"], "fractions": [0.5], "repeats": 1}
        write_study(folder, fit=FIT | {"devices": devices}, **choices)
        result = efface(folder, "all", "study.yml")
        assert result.code == 0, result.err
        ((key, trained[devices]),) = [each for each in rows(folder).items() if each[0].startswith("train-")]
        (row,) = [row for row in rows(folder).values() if row["probe"].get("probe") == "retrain"][-1:]
        retrained[devices] = row
        scores[devices] = np.load(folder / "run" / "scores" / f"{row['key']}.npz")["logit"]
        assert (folder / "run" / "models" / f"network-{key.removeprefix('train-')}.pt").exists()
    assert trained[1]["key"] == trained[2]["key"]
    assert trained[2]["losses"] == pytest.approx(trained[1]["losses"], rel=1e-5)
    assert [row.get("devices") for row in (*trained.values(), *retrained.values())] == [None, 2, None, 2]
    np.testing.assert_allclose(scores[2], scores[1], rtol=1e-3, atol=1e-3)
    again = efface(tmp_path / "1", "all", "study.yml", "fit.devices=2")
    assert again.code == 0
    assert "trained" not in again.out  # the number of devices makes nothing stale


def processes_of(group):
    """The processes of a group that live."""
    found = []
    for each in Path("/proc").iterdir():
        try:
            state = (each / "stat").read_text().rpartition(")")[2].split() if each.name.isdigit() else []
        except OSError:
            continue
        if state and state[2] == str(group) and state[0] != "Z":
            found.append(int(each.name))
    return found


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=["TERM", "INT", "KILL"])
def test_no_process_is_left_when_the_command_ends(tmp_path, number):
    augment = [{"call": "slow.slow", "kwargs": {"seconds": 1.0}}]
    write_study(tmp_path, {"slow": SLOW}, fit=FIT | {"epochs": 200, "augment": augment}, metrics=["morf"])
    process = start(tmp_path, "train", "study.yml")
    until = time.monotonic() + 240
    while not list((tmp_path / "run" / "partial").glob("network-*.pt")):  # the first epoch has ended
        assert time.monotonic() < until
        assert process.is_alive()
        time.sleep(0.1)
    assert len(processes_of(process.pid)) >= 3
    os.kill(process.pid, number)
    result = ended(process, tmp_path)
    assert result.code == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    until = time.monotonic() + 30
    while left := processes_of(process.pid):
        assert time.monotonic() < until, left
        time.sleep(0.1)
    assert "Traceback" not in result.err


# What is refused


def with_gpus(study, name, count, monkeypatch):
    """A run on GPUs that are not there. Its data lie in the memory of this machine."""
    run = Run(study)
    assert run.data_digest
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    vars(run)["device"] = torch.device(name)
    return run


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    """The folder of the study, whose modules it imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("kind", ["fit", "refit"])
def test_more_devices_than_there_are_name_the_key(tmp_path, kind):
    many = FIT | {"devices": 999, "batch_size": 999}
    fits = {"fit": FIT | {"devices": 1}, "refit": None} | {kind: many}
    with pytest.raises(ValueError, match=words(f"{kind}.devices 999 {processors()} processors lower it")):
        try_devices(Run(read(write_study(tmp_path, **fits))))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"executor": "processes"}, "fit.devices 2 executor tasks at once on the same GPUs executor=serial"),
        ({"fit": FIT | {"devices": 9}}, "fit.devices 9 4 GPUs lower it auto"),
        ({"executor": {"call": "ray", "kwargs": {"gpus": 1.0}}}, "fit.devices 2 executor.kwargs.gpus 1"),
        ({"executor": {"call": "slurm"}}, "fit.devices 2 executor.kwargs.gpus=2"),
        ({"executor": {"call": "slurm"}, "device": "cpu"}, "fit.devices 2 executor.kwargs.cpus=2"),
    ],
)
def test_trainings_that_would_share_devices_are_refused(tmp_path, monkeypatch, changes, said):
    study = read(write_study(tmp_path, **{"fit": FIT} | changes))
    with pytest.raises(ValueError, match=words(said)):
        try_devices(with_gpus(study, "cuda", 4, monkeypatch))


def test_one_named_gpu_is_not_several(tmp_path, monkeypatch):
    run = with_gpus(read(write_study(tmp_path, fit=FIT)), "cuda:1", 4, monkeypatch)
    with pytest.raises(ValueError, match=words("fit.devices cuda:1 one GPU device cuda")):
        try_devices(run)


def test_check_says_how_a_batch_is_shared(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("efface.training.several.processors", lambda: 2)
    try_devices(Run(read(write_study(tmp_path, fit=FIT))), tell=True)
    assert names(capsys.readouterr().out, "fit: 2 devices share each batch of 16 images; BatchNorm the whole batch")


def test_a_study_whose_trainings_are_done_needs_no_devices(tmp_path, monkeypatch):
    many = FIT | {"devices": 999, "batch_size": 999}
    run = Run(read(write_study(tmp_path, fit=many, metrics=["morf"])))
    monkeypatch.setattr("efface.stages.run.network.Network.trained", lambda _: True)
    try_devices(run)


@pytest.mark.parametrize("stage", [check, train])
def test_torchrun_is_refused(tmp_path, monkeypatch, stage):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(ValueError, match=words("torchrun 8 processes once fit.devices=8")):
        stage(read(write_study(tmp_path, fit=FIT)))
