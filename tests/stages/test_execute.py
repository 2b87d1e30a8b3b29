"""Executors: the same outcomes, whoever does the work and whoever dies."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
import torch

from efface import execute
from efface.execute import Attempt, Failure, processes, serial
from efface.methods.process_state import process_kept
from small.messages import words


def heavy(task):
    """A number that depends on the order in which threads would add, a tick, and for some tasks an error."""
    execute.advance(float(task))
    if task == 3:
        raise ValueError("three: is no good")
    if task == 4:
        raise ZeroDivisionError("four")
    values = torch.rand(200, 200, generator=torch.Generator().manual_seed(task))
    return (values @ values).sum().item(), torch.get_num_threads()


def die(task):
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def tell_in_a_method(task, folder):
    with process_kept():
        tell(task, folder)


def tell(task, folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)


def test_serial_equals_processes_and_ticks_sum_up():
    outcomes = []
    for executor in (serial, functools.partial(processes, workers=2)):
        ticks = []
        outcomes.append(dict(executor(Attempt(heavy), range(8), progress=ticks.append)))
        assert sum(ticks) == sum(range(8))
        assert len(ticks) == 8
    for each in outcomes:
        assert sorted(each) == list(range(8))
        assert each[3].message == "three: is no good"
        assert each[4].message == "ZeroDivisionError: four"
        assert "in heavy" in each[4].trace
        assert all(isinstance(outcome, Failure) == (task in (3, 4)) for task, outcome in each.items())
        assert all(each[task][1] == 1 for task in (0, 1, 2, 5, 6, 7))
    assert all(outcomes[0][task] == outcomes[1][task] for task in (0, 1, 2, 5, 6, 7))


def test_serial_keeps_order_and_gives_the_threads_back():
    before = torch.get_num_threads()
    found = serial(heavy, iter([2, 0, 1]), threads=2)
    task, outcome = next(found)
    assert (task, outcome[1]) == (2, 2)
    assert [task for task, _ in found] == [0, 1]
    assert torch.get_num_threads() == before
    list(zip(serial(heavy, [0, 1, 2], threads=2), range(1), strict=False))  # left in the middle
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("executor", [serial, processes])
def test_no_tasks_no_work(executor):
    assert list(executor(heavy, [])) == []


def test_ctrl_c_is_not_an_outcome():
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(serial(Attempt(stop), [0]))


def test_a_killed_worker_is_one_clear_error_and_no_hang():
    started = time.monotonic()
    with pytest.raises(ValueError, match=words("worker same command")):
        list(processes(die, range(6), workers=2))
    assert time.monotonic() - started < 120


def alive(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


PARENT = """
import functools, sys
import test_execute
from efface.execute import processes
if __name__ == "__main__":
    list(processes(functools.partial(getattr(test_execute, sys.argv[2]), folder=sys.argv[1]), range(4), workers=2))
"""


@pytest.mark.long
@pytest.mark.parametrize("at", ["tell_in_a_method", "tell"])
def test_a_killed_parent_leaves_no_worker_behind(tmp_path, at):
    script, folder = tmp_path / "parent.py", tmp_path / "pids"
    folder.mkdir()
    script.write_text(PARENT)
    folders = (*Path(__file__).parents[:2], Path(execute.__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    parent = subprocess.Popen([sys.executable, str(script), str(folder), at], env=environment)
    try:
        deadline = time.monotonic() + 120
        while len(workers := [int(each.name) for each in folder.iterdir()]) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(workers) == 2
        assert all(map(alive, workers))
    finally:
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def test_work_that_does_not_pickle_is_one_clear_error_and_no_hang():
    with pytest.raises(ValueError, match=words("efface.execute.serial")):
        list(processes(lambda task: task, [1, 2], workers=2))


class _Deaf:
    """In a finaliser Python says that an exception was ignored, and goes on."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # here the signal is looked at


def _interrupted(steps):
    with execute.stoppable():
        deaf = _Deaf()
        del deaf
        for each in steps:
            each()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "step", [lambda: execute.advance(1.0), lambda: list(serial(int, [1]))], ids=["advance", "task"]
)
def test_a_ctrl_c_that_python_ignores_stops_at_the_next_step(step):
    done = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            _interrupted([lambda: done.append("ignored where it came"), step, lambda: done.append("went on")])
        assert done == ["ignored where it came"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        step()  # it is over with what was stopped
    finally:
        signal.signal(signal.SIGINT, before)


class _Referred:
    """An object that a weak reference may refer to."""


def _deaf_callback(_):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)  # here the signal is looked at


def _stopped_in_a_callback():
    referred = _Referred()
    reference = weakref.ref(referred, _deaf_callback)
    del referred
    assert reference() is None
    execute.advance(1.0)


def test_a_ctrl_c_in_a_callback_of_a_weak_reference_leaves_no_trace(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), execute.stoppable():
            _stopped_in_a_callback()
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    assert shown == []


def test_other_errors_that_python_ignores_are_shown(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with execute.stoppable():
            referred = _Referred()
            reference = weakref.ref(referred, lambda _: 1 / 0)
            del referred
            assert reference() is None
    finally:
        signal.signal(signal.SIGINT, before)
    assert [each.exc_type for each in shown] == [ZeroDivisionError]


def test_a_ctrl_c_that_a_library_turns_into_an_error_is_a_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def turned():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except BaseException as error:
            raise ValueError("Error calling function: KeyboardInterrupt") from error

    try:
        with pytest.raises(KeyboardInterrupt), execute.stoppable():
            turned()
        with pytest.raises(ValueError, match="no good"), execute.stoppable():
            raise ValueError("no good")
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_helper_of_the_workers_outlives_a_hang_up():
    code = """
import signal
from pathlib import Path
from multiprocessing import resource_tracker
from efface.execute.starting import start_tracker as start

start()
(line,) = [each for each in Path(f"/proc/{resource_tracker._resource_tracker._pid}/status").read_text().splitlines()
           if each.startswith("SigBlk")]
assert int(line.split()[1], 16) >> (signal.SIGHUP - 1) & 1
assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")


STARTING = """
import os, signal, sys, time
from efface.execute import processes
from test_execute import blocked

if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: None)
    tasks = processes(blocked, range(2), workers=2)
    found = [next(tasks), *tasks]
    assert not any(outcome for _, outcome in found), "a worker at a task hears a Ctrl-C"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
"""


def blocked(_):
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def _children(pid):
    for each in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(each.read_text().rpartition(")")[2].split()[1]) == pid:
                yield int(each.parent.name)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_worker_that_starts_is_not_interrupted(tmp_path):
    (tmp_path / "starting.py").write_text(STARTING)
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, "starting.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        text=True,
    )
    starting = []
    while not starting:
        assert process.poll() is None
        every = {pid: (Path("/proc") / str(pid) / "cmdline") for pid in _children(process.pid)}
        with contextlib.suppress(OSError):
            lines = {pid: line.read_bytes() for pid, line in every.items()}
            starting = [pid for pid, line in lines.items() if b"fork_server" in line or b"spawn_main" in line]
        time.sleep(0.01)
    for pid in starting:
        os.kill(pid, signal.SIGINT)  # its Python has just begun, so that it would end with a trace
    _, err = process.communicate(timeout=300)
    assert "KeyboardInterrupt" not in err
    assert process.returncode == 0, err


def test_the_functions_that_send_signals_are_as_before():
    def functions():
        return [os.kill, os.killpg, signal.raise_signal, signal.pthread_kill]

    before = functions()
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with execute.stoppable():
            assert not {*functions()} & {*before}
            os.kill(os.getpid(), 0)
            with pytest.raises(TypeError):
                os.kill()
    finally:
        signal.signal(signal.SIGINT, old)
    assert functions() == before


def test_a_second_signal_at_once_is_not_lost_and_does_not_raise_twice():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    raised = []

    def twice():
        for _ in range(2):
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            except KeyboardInterrupt:
                raised.append(1)
        execute.go_on()

    try:
        with pytest.raises(KeyboardInterrupt), execute.stoppable():
            twice()
    finally:
        signal.signal(signal.SIGINT, before)
    assert raised == [1]
