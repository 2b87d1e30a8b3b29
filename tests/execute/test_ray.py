"""Tasks on a Ray cluster: one of this process, and one of two nodes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from efface.execute import Attempt, Failure, WorkerDiedError, ray, slots
from efface.execute.on_ray import check_ray
from small import tasks as small_tasks
from small.messages import words
from small.studies import write_study

pytest.importorskip("ray")
LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
SOURCE = [str(Path(__file__).parents[1]), *filter(None, sys.path)]


@pytest.fixture(scope="module")
def team():
    """A function that gives the outcomes of tasks of a local cluster, which starts once."""
    from efface.execute.ray_cluster import disconnect

    yield lambda work, tasks, **settings: dict(ray(work, tasks, **{"workers": 2, "cpus": 0.5} | settings))
    disconnect()
    assert left_by(os.getpid()) == []


def left_by(process):
    """Processes and folders of Ray that belong to a process."""
    folders = [str(each) for each in Path("/tmp").glob(f"efface-ray-{process}-*")]  # noqa: S108  where Ray's sockets fit
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [each.parent.name for _ in [0] if f"efface-ray-{process}-".encode() in each.read_bytes()]
    return folders + found


def living(process, workers):
    return [each for each in (*left_by(process), *workers) if each.isdecimal() and is_alive(each)]


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_needs_no_cluster_without_tasks():
    assert list(ray(small_tasks.same, [])) == []


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"needs ray.*pip install 'efface\[ray\]'"):
        list(ray(small_tasks.same, []))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"workers": 0}, "workers"),
        ({"cpus": 0.0}, "cpus"),
        ({"gpus": -1.0}, "gpus"),
        ({"gpus": 1.5}, "gpus"),
        ({"retries": -1}, "retries"),
        ({"threads": 0}, "threads"),
    ],
)
def test_settings_that_no_worker_can_have_are_refused(settings, named):
    with pytest.raises(ValueError, match=words(named)):
        check_ray(**settings)


def test_the_tasks_at_once_are_told():
    assert slots(ray, 9, {"workers": 3}) == 3
    assert slots(ray, 9, {"address": "10.0.0.1:6379"}) == 9


def test_work_of_the_program_itself_is_told(monkeypatch):
    monkeypatch.setattr(small_tasks.same, "__module__", "__main__")
    with pytest.raises(ValueError, match="same is defined in the program itself"):
        list(ray(small_tasks.same, [1]))


@pytest.mark.long
def test_a_local_cluster_does_the_tasks_in_silence(team, capfd, tmp_path, monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    found = team(Attempt(small_tasks.fails_at_one), range(5))
    assert isinstance(found.pop(1), Failure)
    assert found == {0: 0, 2: 2, 3: 3, 4: 4}
    with pytest.raises(ZeroDivisionError):
        team(small_tasks.fails_at_one, range(2))
    assert capfd.readouterr() == ("", "")
    assert {number: signal.getsignal(number) for number in before} == before
    assert not (Path.home() / ".ray").exists()


@pytest.mark.long
@pytest.mark.parametrize("address", ["127.0.0.1:1", "head", "ray://127.0.0.1:1"])
def test_a_cluster_that_does_not_answer_is_told(address):
    from efface.execute.ray_cluster import disconnect

    disconnect()
    with pytest.raises(ValueError, match=words("no Ray cluster answers executor.kwargs.address")):
        list(ray(small_tasks.same, [1], address=address))


@pytest.mark.long
def test_workers_have_the_threads_and_the_folder_and_stay(team, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert team(small_tasks.threads, range(3), threads=2) == dict.fromkeys(range(3), (2, str(tmp_path)))
    first, second = (set(team(small_tasks.process, range(8)).values()) for _ in range(2))
    assert second <= first
    assert os.getpid() not in first
    assert len(set(team(small_tasks.process, range(4), workers=1).values())) == 1  # though two are there


@pytest.mark.long
def test_a_killed_worker_loses_its_own_task_which_is_begun_again(team, tmp_path):
    tasks = [(str(tmp_path), number) for number in range(6)]
    assert team(small_tasks.dies_once, tasks) == {task: task[1] for task in tasks}


@pytest.mark.long
def test_a_task_that_always_dies_comes_last(team):
    found = []
    with pytest.raises(WorkerDiedError, match=words("1 of 5 tasks 2 times")):
        found.extend(ray(small_tasks.dies_at_one, range(5), retries=1, workers=2, cpus=0.5))
    assert dict(found) == {0: 0, 2: 2, 3: 3, 4: 4}


@pytest.mark.long
def test_a_worker_that_is_not_possible_is_told(team):
    with pytest.raises(ValueError, match=words("needs 4000 executor.kwargs.cpus")):
        team(small_tasks.same, [1], cpus=4000.0)


@pytest.mark.long
@LINUX
def test_a_call_that_is_left_ends_its_workers(team, tmp_path):
    tasks = [(str(tmp_path / "quick"), 0.0), (str(tmp_path / "slow"), 300.0)]
    found = ray(small_tasks.told, tasks, workers=1, cpus=0.5)
    assert next(found)[1] == "finished"
    until = time.monotonic() + 60
    while not (tmp_path / "slow").exists() and time.monotonic() < until:
        time.sleep(0.05)
    found.close()
    assert not is_alive((tmp_path / "slow").read_text().strip())


DRIVER = """
import sys
from efface.execute import ray
from small import tasks as small_tasks

if __name__ == "__main__":
    list(ray(small_tasks.told, [(f"{sys.argv[1]}/{each}", 300.0) for each in range(2)], workers=2, cpus=0.5))
"""


@pytest.mark.long
@LINUX
def test_a_killed_driver_leaves_no_process(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(SOURCE)}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)], env=environment)
    until = time.monotonic() + 120
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    workers = [each.read_text().strip() for each in tmp_path.iterdir()]
    assert all(map(is_alive, workers))
    driver.kill()
    driver.wait()
    until = time.monotonic() + 30
    while living(driver.pid, workers) and time.monotonic() < until:
        time.sleep(0.1)
    assert living(driver.pid, workers) == []
    from efface.execute.ray_cluster import new_folder

    new_folder().rmdir()  # the next cluster removes what a killed process left
    assert left_by(driver.pid) == []


@pytest.mark.long
def test_the_numbers_of_a_study_are_those_of_serial(tmp_path):
    found = []
    for word in ("serial", "ray"):
        folder = tmp_path / word
        folder.mkdir()
        write_study(folder, executor=word)
        done = subprocess.run(
            [sys.executable, "-m", "efface", "all", "study.yml"],
            cwd=folder, env=os.environ | {"PYTHONPATH": os.pathsep.join(SOURCE), "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "ray" not in done.stderr.lower()
        maps = {each.name: each.read_bytes() for each in (folder / "run" / "maps").glob("*.h5")}
        found.append(((folder / "run" / "report" / "table.csv").read_bytes(), maps))
    assert found[0] == found[1]
