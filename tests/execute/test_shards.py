"""Extraction in shards: the files have the bytes of `serial`, also after a kill, and a failure is one method's."""

import numpy as np
import pytest
import torch

from efface.store.maps import MapWriter
from efface.store.partial_rows import rows_done
from small.studies import efface, write_study

pytest.importorskip("submitit")
DEBUG = {"call": "slurm", "kwargs": {"cluster": "debug"}}
SMALL = {"max_batch": 2, "metrics": ["morf"], "fractions": [0.5]}  # 24 test images: three shards of four blocks
FAILS = """
SEEN = []


def late(model, images, targets):
    SEEN.append(len(images))
    if sum(SEEN) > 20:
        raise RuntimeError("late")
    return images[:, 0]
"""
LATE = {"name": "late", "method": "fails.late"}


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serial")
    write_study(folder, **SMALL)
    assert efface(folder, "all", "study.yml").code == 0
    return outputs(folder)


def outputs(folder):
    maps = {each.name: each.read_bytes() for each in (folder / "run" / "maps").glob("*.h5")}
    return maps, (folder / "run" / "report" / "table.csv").read_bytes()


def test_merged_files_have_the_bytes_of_serial(tmp_path, serial):
    write_study(tmp_path, executor=DEBUG, **SMALL)
    found = efface(tmp_path, "all", "study.yml")
    assert found.code == 0, found.err
    assert "extracted 3 of 3 sets of maps" in found.out
    assert outputs(tmp_path) == serial
    assert [*(tmp_path / "run" / "maps").glob("*.partial")] == []


@pytest.mark.parametrize(
    "kill_at", [60, pytest.param(75, marks=pytest.mark.long), pytest.param(90, marks=pytest.mark.long)]
)
def test_a_kill_costs_nothing_that_was_written(tmp_path, serial, kill_at):
    write_study(tmp_path, executor=DEBUG, **SMALL)
    assert efface(tmp_path, "all", "study.yml", kill_at=kill_at).code < 0
    assert efface(tmp_path, "all", "study.yml").code == 0
    assert outputs(tmp_path) == serial


def test_a_shard_that_fails_is_the_failure_of_its_method_alone(tmp_path, serial):
    methods = [
        {"name": "random", "method": "efface.methods.control.random"},
        LATE,
        {"name": "mine", "method": "mine.brightness"},
        {"name": "pair", "method": "pair.two", "outputs": ["red", "green"]},
    ]
    write_study(tmp_path, {"fails": FAILS}, executor=DEBUG, attribution_methods=methods, **SMALL)
    found = efface(tmp_path, "all", "study.yml")
    assert found.code == 1
    assert "late, test: RuntimeError: late" in found.out + found.err
    assert "extracted 3 of 4 sets of maps" in found.out
    assert outputs(tmp_path)[0] == serial[0]


def test_rows_that_a_writer_would_keep(tmp_path):
    path, targets = tmp_path / "maps.h5", torch.tensor([3, 1, 2, 0])
    assert not rows_done(path, {"seed": 0}, targets).any()
    writer = MapWriter(path, {"seed": 0}, targets, torch.zeros(2, 2))
    writer.write(1, torch.ones(2, 2, 2))
    writer.abandon()
    assert rows_done(path, {"seed": 0}, targets).tolist() == [False, True, True, False]
    assert rows_done(path, {"seed": 0}, torch.tensor([3, 0, 2, 0])).tolist() == [False, False, True, False]
    assert not rows_done(path, {"seed": 1}, targets).any()
    assert not rows_done(path, {"seed": 0}, targets[:3]).any()
    (tmp_path / "maps.h5.partial").write_bytes(b"no file")
    assert rows_done(path, {"seed": 0}, targets).dtype == np.bool_
    assert not rows_done(path, {"seed": 0}, targets).any()
