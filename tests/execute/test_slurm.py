"""Tasks in the jobs of a batch system: submitit's `debug` and `local` stand for Slurm."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from efface.execute import Attempt, Failure, WorkerDiedError, slots, slurm
from efface.execute.elsewhere import packed
from efface.execute.on_slurm import check_slurm
from efface.execute.task_folder import TaskFolder, machine, write
from efface.study.study import InvalidStudyError, read
from small import tasks as small_tasks
from small.messages import words
from small.studies import efface, write_study

pytest.importorskip("submitit")
LOCAL = {"cluster": "local", "workers": 2}


@pytest.fixture
def through(tmp_path, monkeypatch):
    """A function that gives the outcomes of tasks, by task. Nothing is left of its files."""
    monkeypatch.chdir(tmp_path)

    def done(work, tasks, **settings):
        try:
            return dict(slurm(work, tasks, **{"cluster": "debug"} | settings))
        finally:
            assert not (tmp_path / "slurm_jobs").exists()

    return done


def test_debug_does_the_tasks_in_this_process(through):
    found = through(Attempt(small_tasks.fails_at_one), range(4))
    assert isinstance(found.pop(1), Failure)
    assert found == {0: 0, 2: 2, 3: 3}
    with pytest.raises(ZeroDivisionError):
        through(small_tasks.fails_at_one, range(4))
    assert through(small_tasks.same, []) == {}


def test_what_comes_back_comes_as_soon_as_it_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = slurm(small_tasks.fails_at_one, range(3), cluster="debug")
    assert next(found) == (0, 0)
    found.close()
    assert not (tmp_path / "slurm_jobs").exists()


def test_work_that_cannot_be_sent_is_told(through, monkeypatch):
    with pytest.raises(ValueError, match=words("executor sent other processes efface.execute.serial")):
        through(lambda task: task, [1])
    monkeypatch.setattr(small_tasks.same, "__module__", "__main__")
    with pytest.raises(ValueError, match="same is defined in the program itself"):
        through(small_tasks.same, [1])


def test_without_the_extra_the_error_says_how_to_get_it(through, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match=r"needs submitit.*pip install 'efface\[slurm\]'"):
        through(small_tasks.same, [])


def test_without_slurm_the_error_says_where_to_start(through, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=words("sbatch executor.kwargs.cluster=local")):
        through(small_tasks.same, [1], cluster="slurm")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"workers": 0}, "workers"),
        ({"workers": 1001}, "workers 1000"),
        ({"cpus": 0}, "cpus"),
        ({"gpus": -1}, "gpus"),
        ({"retries": -1}, "retries"),
        ({"minutes": 1}, "minutes 2"),
        ({"minutes": 10, "task_minutes": 9.0}, "task_minutes 10 90"),
    ],
)
def test_settings_that_no_job_can_have_are_refused(settings, named):
    with pytest.raises(ValueError, match=words(named)):
        check_slurm(**settings)


def test_the_jobs_at_once_are_told():
    assert slots(slurm, 9, {"workers": 3}) == 3
    assert slots(slurm, 2, {}) == 2
    assert slots(slurm, 9, {"cluster": "debug"}) == 1


def test_a_task_that_no_job_finishes_ends_the_call(through, monkeypatch):
    monkeypatch.setattr(TaskFolder, "times_let_go", lambda self, number: 20)
    with pytest.raises(ValueError, match=words("20 jobs 60 minutes executor.kwargs.minutes")):
        through(small_tasks.same, [1])


def test_a_claim_without_a_name_is_taken_back_when_all_jobs_have_ended(through, monkeypatch):
    """Its job was killed between the making of the file and its content."""
    fill = TaskFolder.fill

    def half_claimed(folder, work, tasks):
        fill(folder, work, tasks)
        (folder.path / "claims" / "1").touch()

    monkeypatch.setattr(TaskFolder, "fill", half_claimed)
    assert through(small_tasks.same, range(3)) == {0: 0, 1: 1, 2: 2}


def test_the_rest_of_a_killed_call_is_removed_and_a_living_one_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    for name, process in (("20260101-000000-1-1", int(ended.stdout)), ("20260101-000000-2-2", 1)):
        call = TaskFolder(tmp_path / "slurm_jobs" / name)
        call.fill(packed(small_tasks.same), [])
        write(call.life("driver"), f"{machine()} {process} 1".encode())
    assert list(slurm(small_tasks.same, [1], cluster="debug")) == [(1, 1)]
    assert [each.name for each in (tmp_path / "slurm_jobs").iterdir()] == ["20260101-000000-2-2"]


def test_what_slurm_is_asked_for(tmp_path, monkeypatch):
    """An sbatch that notes its script, and begins no job."""
    submitit = pytest.importorskip("submitit")
    monkeypatch.chdir(tmp_path)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (
        ("sbatch", f'cp "$1" {tmp_path}/script; echo "Submitted batch job 7"'),
        ("sacct", 'printf "JobID|State|NodeList\\n7_[0-1]|FAILED|x\\n"'),
        ("srun", ""),
        ("scancel", f'echo "$@" >> {tmp_path}/cancelled'),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(submitit.SlurmJob.watcher, "_delay_s", 0)
    settings = {"workers": 2, "gpus": 1, "cpus": 3, "partition": "short", "setup": ["true"], "sbatch": {"qos": "low"}}
    with pytest.raises(ValueError, match="3 jobs in a row ended before they began a task"):
        list(slurm(small_tasks.same, range(4), cluster="slurm", minutes=30, **settings))
    script = (tmp_path / "script").read_text()
    for option in (
        "--array=0-1%2", "--time=30", "--gpus-per-node=1", "--cpus-per-task=3", "--partition=short", "--qos=low",
        "--no-requeue", "--signal=USR2@90",
    ):  # fmt: skip
        assert f"#SBATCH {option}" in script
    assert not (tmp_path / "slurm_jobs").exists()


@pytest.mark.long
def test_local_jobs_are_processes_in_this_folder_with_threads(through, tmp_path):
    assert through(small_tasks.threads, range(4), threads=2, **LOCAL) == dict.fromkeys(range(4), (2, str(tmp_path)))


@pytest.mark.long
def test_a_killed_job_loses_its_own_task_which_is_begun_again(through, tmp_path):
    tasks = [(str(tmp_path), number) for number in range(6)]
    assert through(small_tasks.dies_once, tasks, **LOCAL) == {task: task[1] for task in tasks}


@pytest.mark.long
def test_a_task_that_always_dies_comes_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = []
    with pytest.raises(WorkerDiedError, match=words("1 of 5 tasks 2 times")):
        found.extend(slurm(small_tasks.dies_at_one, range(5), retries=1, **LOCAL))
    assert dict(found) == {0: 0, 2: 2, 3: 3, 4: 4}


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_job_that_is_told_to_end_gives_its_task_to_another(through, tmp_path, number):
    tasks = [(str(tmp_path / str(each)), int(number)) for each in range(2)]
    assert through(small_tasks.signalled, tasks, **LOCAL, retries=0) == dict.fromkeys(tasks, "finished")


@pytest.mark.long
def test_a_call_that_is_left_leaves_no_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tasks = [(str(tmp_path / "quick"), 0.0), (str(tmp_path / "slow"), 300.0)]
    found = slurm(small_tasks.told, tasks, cluster="local", workers=1)
    assert next(found)[1] == "finished"
    until = time.monotonic() + 60
    while not (tmp_path / "slow").exists() and time.monotonic() < until:
        time.sleep(0.05)
    found.close()
    assert not Path(f"/proc/{int((tmp_path / 'slow').read_text())}").exists()
    assert not (tmp_path / "slurm_jobs").exists()
    assert [each.name for each in threading.enumerate() if each.name == "signs of life"] == []


LEAVES = """
from os import _exit


def leave(model, images, targets):
    if len(images) > 2:
        _exit(3)
    return images.sum(1)
"""


@pytest.mark.long
def test_a_method_that_ends_its_job_fails_alone(tmp_path):
    methods = [
        {"name": "random", "method": "efface.methods.control.random"},
        {"name": "leave", "method": "leaves.leave"},
        {"name": "mine", "method": "mine.brightness"},
    ]
    executor = {"call": "slurm", "kwargs": LOCAL | {"retries": 1}}
    write_study(tmp_path, {"leaves": LEAVES}, attribution_methods=methods, metrics=["morf"], executor=executor)
    found = efface(tmp_path, "all", "study.yml")
    assert found.code == 1
    assert "leave, test: its process ended" in found.out + found.err
    assert "extracted 2 of 3 sets of maps" in found.out


def table(folder, executor):
    run = folder / str(executor["kwargs"]["cluster"] if isinstance(executor, dict) else executor)
    run.mkdir()
    write_study(run, executor=executor)
    found = efface(run, "all", "study.yml")
    assert found.code == 0, found.err
    assert {each.name for each in run.glob("slurm*")} == set()
    maps = {each.name: each.read_bytes() for each in (run / "run" / "maps").glob("*.h5")}
    return (run / "run" / "report" / "table.csv").read_bytes(), maps


@pytest.mark.parametrize("cluster", ["debug", pytest.param("local", marks=pytest.mark.long)])
def test_the_numbers_of_a_study_are_those_of_serial(tmp_path, cluster):
    executor = {"call": "slurm", "kwargs": {"cluster": cluster, "workers": 2}}
    assert table(tmp_path, executor) == table(tmp_path, "serial")


def test_a_study_names_it_by_its_word(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path = write_study(tmp_path, executor={"call": "slurm", "kwargs": {"minutes": 30}})
    assert read(path).executor.call == "efface.execute.slurm"
    with pytest.raises(InvalidStudyError, match=words("minutes")):
        read(write_study(tmp_path, executor={"call": "slurm", "kwargs": {"minutes": 1}}))
