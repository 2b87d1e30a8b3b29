"""What workers say of the task at work: how far it is, on every executor, and what is left if one is killed."""

import functools
import json
import multiprocessing
import os
import signal
import threading
import time

import pytest

from efface.execute import advance, processes, ray, serial, slurm, task_status
from efface.execute.task_status import EVERY, SILENCE, Statuses, already_there, step, training, working_on
from small import tasks as small_tasks


@pytest.fixture
def clock(monkeypatch):
    """A function that lets the pretended seconds pass."""
    now = [100.0]
    monkeypatch.setattr(task_status.time, "monotonic", lambda: now[0])

    def passes(seconds):
        now[0] += seconds

    return passes


def read(folder, clock):
    """The status, after the next report."""
    clock(EVERY)
    advance(0.0)
    (seen,) = Statuses([folder]).look()
    return seen.status


def test_a_task_has_a_file_only_while_it_runs(tmp_path, clock):
    with working_on(tmp_path, "mine", 10.0, "maps"):
        advance(4.0)
        status = read(tmp_path, clock)
        assert (status.name, status.done, status.cost, status.images) == ("mine", 4.0, 10.0, 4.0)
        assert (status.process, status.seconds) == (os.getpid(), EVERY)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), working_on(tmp_path, "mine", 10.0, "maps"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    advance(1.0)  # outside of a task nobody listens


def test_a_file_is_written_at_most_twice_a_second(tmp_path, clock, monkeypatch):
    writes = []
    monkeypatch.setattr(task_status, "write", lambda path, content: writes.append(path))
    with working_on(tmp_path, "mine", 1000.0, "maps"):
        for _ in range(1000):
            clock(0.01)
            advance(1.0)
    assert len(writes) == pytest.approx(10.0 / EVERY, abs=1)


@pytest.mark.parametrize("found", [0, 2])
def test_a_training_is_told_step_by_step_and_its_images_count_once(tmp_path, clock, found):
    """Four epochs of 30 images that cost 90 passes each, then 40 test images."""
    with working_on(tmp_path, "roar", 400.0, "passes"):
        with training(4, 30, cost=90.0, found=found):
            for epoch in range(found, 4):
                for at in (1, 2, 3):
                    step(10)
                    status = read(tmp_path, clock)
                    assert status.done == pytest.approx(90.0 * (epoch + at / 3))
                    assert (status.epoch, status.epochs) == (epoch + 1, 4)
                advance(90.0)
        advance(30.0)
        status = read(tmp_path, clock)
        assert (status.done, status.epoch) == (390.0, 0)
        assert status.images == 30 * (4 - found) + 30
        assert status.found == 90.0 * found
        with already_there():
            advance(10.0)
        status = read(tmp_path, clock)
        assert (status.done, status.images, status.found) == (400.0, 30 * (4 - found) + 30, 90.0 * found + 10.0)


def test_done_never_falls_and_never_passes_the_cost(tmp_path, clock):
    with working_on(tmp_path, "mine", 10.0, "passes"):
        with training(2, 10, cost=4.0, found=0):  # this one reports no epochs, as a network that probes share
            step(10)
            assert read(tmp_path, clock).done == 4.0
        advance(2.0)
        assert read(tmp_path, clock).done == 4.0
        advance(20.0)
        assert read(tmp_path, clock).done == 10.0


def test_a_worker_counts_its_images_over_all_tasks(tmp_path, clock):
    with working_on(tmp_path, "first", 5.0, "maps"):
        before = read(tmp_path, clock).before
        advance(5.0)
    with working_on(tmp_path, "second", 5.0, "maps"):
        assert read(tmp_path, clock).before == before + 5.0


@pytest.mark.parametrize("place", ["nowhere", "a file"])
def test_without_a_place_for_the_file_the_work_runs(tmp_path, place):
    (tmp_path / "a file").write_text("")
    with working_on(tmp_path / place, "mine", 1.0, "maps"):
        advance(1.0)
    assert [each.name for each in tmp_path.iterdir()] == ["a file"]


def _is_killed(folder):
    with working_on(folder, "mine", 10.0, "maps"):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_told_as_gone(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_is_killed, args=(tmp_path,))
    process.start()
    process.join()
    statuses = Statuses([tmp_path])
    (seen,) = statuses.look()
    assert seen.has_ended
    assert not seen.is_sure
    statuses.clear()
    assert list(tmp_path.iterdir()) == []


def test_silence_is_measured_by_the_readers_own_clock(tmp_path, clock):
    with working_on(tmp_path, "mine", 10.0, "maps"):
        (path,) = tmp_path.iterdir()
        text = json.dumps(json.loads(path.read_text()) | {"machine": "another", "process": 1})
    path.write_text(text)
    ahead = time.time() + 5000
    os.utime(path, (ahead, ahead))  # the clock of the other machine is wrong
    statuses = Statuses([tmp_path])
    assert statuses.look()[0].silent == 0.0
    clock(SILENCE)
    assert statuses.look()[0].silent == SILENCE
    assert not statuses.look()[0].is_sure
    path.write_text(text.replace('"done": 0.0', '"done": 1.0'))
    assert statuses.look()[0].is_sure


@pytest.mark.parametrize(
    "damage",
    [
        lambda status: "",
        lambda status: json.dumps(status)[:-5],
        lambda status: "[]",
        lambda status: json.dumps({name: value for name, value in status.items() if name != "cost"}),
        lambda status: json.dumps(status | {"cost": "much"}),
        lambda status: json.dumps(status | {"done": float("nan")}),
        lambda status: json.dumps(status | {"name": 1}),
    ],
)
def test_a_damaged_file_is_no_status(tmp_path, damage):
    with working_on(tmp_path, "mine", 10.0, "maps"):
        (path,) = tmp_path.iterdir()
        status = json.loads(path.read_text())
        assert len(Statuses([tmp_path]).look()) == 1
        path.write_text(damage(status))
        assert Statuses([tmp_path]).look() == []


@pytest.mark.parametrize(
    "executor",
    [
        serial,
        pytest.param(functools.partial(processes, workers=2), marks=pytest.mark.long),
        pytest.param(functools.partial(slurm, cluster="local", workers=2), marks=pytest.mark.long),
        pytest.param(functools.partial(ray, workers=2, cpus=0.5), marks=pytest.mark.long),
    ],
    ids=["serial", "processes", "slurm", "ray"],
)
def test_every_executor_tells_how_far_its_tasks_are(tmp_path, monkeypatch, executor):
    monkeypatch.chdir(tmp_path)
    folders = [str(tmp_path / str(each)) for each in range(2)]
    statuses = Statuses([tmp_path / str(each) for each in range(2)])
    for folder in statuses.folders:
        folder.mkdir()

    def look():
        seen, until = set(), time.monotonic() + 120
        while len(seen) < 2 and time.monotonic() < until:
            time.sleep(0.05)
            for folder in statuses.folders:
                if any(each.status.done == 50.0 for each in Statuses([folder]).look()):
                    (folder / "seen").touch()
                    seen.add(folder)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        assert dict(executor(small_tasks.half_done, folders)) == dict.fromkeys(folders, True)
    finally:
        reader.join()
        if "ray" in str(executor):
            from efface.execute.ray_cluster import disconnect

            disconnect()
    assert statuses.look() == []
