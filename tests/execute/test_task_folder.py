"""Tasks in a folder: each is claimed once, whoever asks, and comes back if its lane does not finish it."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from efface.execute import task_folder
from efface.execute.elsewhere import Place, outcome, packed
from efface.execute.lane import Lane
from efface.execute.task_folder import Beating, TaskFolder, Watched, machine, write
from small import tasks as small_tasks


@pytest.fixture
def filled(tmp_path):
    """A function that gives a folder with these tasks."""

    def made(work, tasks):
        folder = TaskFolder(tmp_path / "call")
        folder.fill(packed(work), [packed(task) for task in tasks])
        return folder

    return made


def lane(folder, **changes):
    settings = {"name": "0", "place": Place.here(), "threads": 1, "seconds": 60.0, "driver": os.getpid()} | changes
    return Lane(folder.path, **settings)


def test_claims_of_threads_at_once_share_the_tasks_out(filled):
    folder = filled(small_tasks.same, range(80))
    with ThreadPoolExecutor(4) as pool:
        every = list(pool.map(lambda name: list(iter(lambda: folder.claim(name), None)), "abcd"))
    assert sorted(number for claimed in every for number in claimed) == [*range(80)]
    assert all(
        folder.claimed([name], range(80)) == sorted(claimed) for name, claimed in zip("abcd", every, strict=True)
    )


def test_a_lane_answers_every_task(filled):
    folder = filled(small_tasks.fails_at_one, range(3))
    assert lane(folder)() == 3
    answers = {number: folder.answer(number)[0] for number in range(3)}
    assert [outcome(answers[number]) for number in (0, 2)] == [0, 2]
    with pytest.raises(ZeroDivisionError, match="one"):
        outcome(answers[1])
    assert folder.numbers("tasks") == folder.numbers("done") == set()


@pytest.mark.parametrize(
    ("seconds", "task_seconds", "finished"), [(0.0, 0.0, 1), (5.0, 6.0, 1), (60.0, 1.0, 4), (60.0, 0.0, 4)]
)
def test_no_task_is_begun_that_does_not_fit_but_the_first(filled, seconds, task_seconds, finished):
    folder = filled(small_tasks.same, range(4))
    assert lane(folder, seconds=seconds, task_seconds=task_seconds)() == finished
    assert folder.numbers("claims") == set(range(finished))
    assert lane(folder, name="1")() == 4 - finished


def test_what_a_lane_learns_of_a_task_holds_for_the_next(filled, tmp_path):
    folder = filled(small_tasks.told, [(tmp_path / "said", 0.2)] * 3)
    assert lane(folder, seconds=0.3)() == 1


LANE = """
import sys
from pathlib import Path
from efface.execute.elsewhere import Place
from efface.execute.lane import Lane

if __name__ == "__main__":
    Lane(Path(sys.argv[1]), "0", Place.here(), 1, 60.0)()
"""


def started(folder, *, driver=True):
    """A lane in a process of its own, with a driver that lives or not."""
    if driver:
        write(folder.life("driver"), f"{machine()} {os.getpid()} 1".encode())
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", LANE, str(folder.path)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize(
    "name", ["SIGTERM", *(pytest.param(each, marks=pytest.mark.long) for each in ("SIGUSR1", "SIGUSR2", "SIGHUP"))]
)
def test_a_signal_lets_the_task_go_and_is_no_error(filled, tmp_path, name):
    folder = filled(small_tasks.signalled, [(tmp_path / "begun", getattr(signal, name)), (tmp_path / "other", 0)])
    process = started(folder)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert (tmp_path / "begun").exists()
    assert folder.numbers("claims") == folder.numbers("done") == set()
    assert folder.times_let_go(0) == 1
    assert not folder.life("0").exists()
    assert lane(folder, name="1")() == 2


@pytest.mark.long
def test_a_lane_ends_with_its_driver(filled, tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    folder = filled(small_tasks.told, [(tmp_path / "said", 60.0)] * 2)
    write(folder.life("driver"), f"{machine()} {int(dead.stdout)} 1".encode())
    process = started(folder, driver=False)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert folder.numbers("claims") == set()


def test_life_is_told_by_the_process_here_and_by_its_beats_elsewhere(tmp_path, monkeypatch):
    beating = Beating(tmp_path / "here")
    here = Watched(tmp_path / "here")
    assert here.lives()
    assert here.is_sure()
    assert not here.has_gone()
    beating.stop()
    assert here.has_gone()
    write(tmp_path / "there", b"another-machine 1 1")
    there = Watched(tmp_path / "there")
    assert there.lives()
    assert not there.is_sure()
    write(tmp_path / "there", b"another-machine 1 2")
    assert there.lives()
    assert there.is_sure()
    monkeypatch.setattr(task_folder, "SILENCE", 0.0)
    assert not there.lives()


def test_a_place_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ValueError, match="does not have this folder"):
        Place(str(tmp_path / "gone"), ()).enter()
