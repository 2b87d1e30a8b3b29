"""Workers that a server forks are as new interpreters are, and none of them outlives the command or the server."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from efface import execute
from efface.execute import processes, starting
from efface.execute.pool import WorkerDiedError, in_workers
from small import looked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are new interpreters")

FOLDERS = [str(Path(__file__).parents[1]), str(Path(execute.__file__).parents[2])]
EFFACE = {"PYTHONPATH": os.pathsep.join(FOLDERS)}


@pytest.fixture(autouse=True)
def no_workers():
    execute.close_all()
    yield
    execute.close_all()


def results(work, count=2):
    return [result for _, result in processes(work, list(range(count)), workers=count)]


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def ends(*pids):
    until = time.monotonic() + 15
    while any(map(lives, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(lives, pids))


@pytest.mark.long
def test_a_worker_is_as_a_new_interpreter(tmp_path, monkeypatch):
    looks = []
    for change in ("nothing", "all"):
        if change == "all":  # what a new process inherits or is told, after the first server has started
            monkeypatch.setenv("WORKERS_SEE", "this")
            monkeypatch.chdir(tmp_path)
            monkeypatch.syspath_prepend(tmp_path / "modules")
            monkeypatch.setattr(sys, "argv", ["other", "words"])
            os.umask(0o027)
            execute.close_all()
        ours, theirs = multiprocessing.Pipe()
        new = multiprocessing.get_context("spawn").Process(target=looked.tell, args=(theirs,))
        new.start()
        expected = ours.recv()
        new.join()
        looks.append(found := results(looked.look))
        for each in found:
            assert {name: each[name] for name in expected} == expected
        assert len({each["process"] for each in found}) == 2
        (server,) = {each["server"] for each in found}
        assert server != os.getpid()
        assert len(list(Path(f"/proc/{server}/task").iterdir())) == 1
        files = [str(each.readlink()) for each in Path(f"/proc/{server}/fd").iterdir()]
        assert not [each for each in files if each.endswith(".h5")]
        assert b"libcuda.so" not in Path(f"/proc/{server}/maps").read_bytes()
        assert len({drawn for each in found for drawn in each["drawn"]}) == 6
    assert looks[0][0]["server"] != looks[1][0]["server"]
    assert ends(looks[0][0]["server"])


@pytest.fixture(autouse=True)
def mask_kept():
    mask = os.umask(0)
    os.umask(mask)
    yield
    os.umask(mask)


@pytest.mark.long
def test_one_server_forks_all_workers_and_ends_with_the_command(tmp_path):
    code = (
        "from efface.execute import processes, close_all\nfrom small import looked\n"
        "def servers():\n    return [each['server'] for _, each in processes(looked.look, [1, 2], workers=2)]\n"
        "one = servers()\nclose_all()\nprint(*one, *servers())\n"
    )
    done = subprocess.run(
        [sys.executable, "-"], input=code, env=os.environ | EFFACE, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    (server,) = {*done.stdout.split()}
    assert not lives(server)


@pytest.mark.long
def test_a_file_that_is_edited_is_read_anew_by_new_workers(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    for number in (1, 2):
        (tmp_path / "edited.py").write_text(f"NUMBER = {number}\n")
        os.utime(tmp_path / "edited.py", (number, number))
        seen.append(results(looked.value))
        execute.close_all()
    assert seen == [[1, 1], [2, 2]]


@pytest.mark.long
def test_a_worker_ends_in_an_orderly_way(tmp_path):
    list(processes(looked.registers, [tmp_path] * 2, workers=2))
    assert [*tmp_path.iterdir()] == []
    execute.close_all()
    assert len([*tmp_path.iterdir()]) == 2


LAST_WORDS = """
import atexit
from efface.execute import processes

def registers(task):
    atexit.register(print, "the end of a worker")
    return task

if __name__ == "__main__":
    list(processes(registers, [1, 2], workers=2))
"""


@pytest.mark.long
def test_what_a_worker_prints_at_its_end_is_seen(tmp_path):
    (tmp_path / "program.py").write_text(LAST_WORDS)
    buffered = {key: value for key, value in (os.environ | EFFACE).items() if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, str(tmp_path / "program.py")]
    done = subprocess.run(command, env=buffered, capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()) == {"the end of a worker"}


MAIN = """
import time
from efface.execute import processes

def named(task):
    time.sleep(0.3)
    return __name__, task

if __name__ == "__main__":
    print(sorted(processes(named, [1, 2], workers=2)))
"""


@pytest.mark.long
def test_work_of_the_program_itself_is_found(tmp_path):
    (tmp_path / "program.py").write_text(MAIN)
    command = [sys.executable, str(tmp_path / "program.py")]
    done = subprocess.run(command, env=os.environ | EFFACE, capture_output=True, text=True, check=True)
    assert done.stdout == "[(1, ('__mp_main__', 1)), (2, ('__mp_main__', 2))]\n"


def kill_server(task):
    if task == 1:
        time.sleep(1)
        os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


@pytest.mark.long
def test_a_killed_server_is_a_worker_that_died_and_the_next_call_has_another():
    before = [each["process"] for each in results(looked.look)]
    with pytest.raises(WorkerDiedError, match="worker process died"):
        list(processes(kill_server, [1, 2], workers=2))
    assert ends(*before)
    again = results(looked.look)
    assert not {each["process"] for each in again} & {*before}
    os.kill(again[0]["server"], signal.SIGKILL)
    with pytest.raises(WorkerDiedError):
        results(looked.look)
    assert len(results(looked.look)) == 2


@pytest.mark.long
def test_the_server_may_be_killed_while_no_worker_lives():
    server = results(looked.look)[0]["server"]
    execute.close_all()
    os.kill(server, signal.SIGKILL)
    found = results(looked.look)
    assert len(found) == 2
    assert server not in {each["server"] for each in found}


STARTS = """
import signal
from efface.execute import processes
from small import looked
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    print("begins", flush=True)
    list(processes(looked.look, range(200), workers=2))
"""


def descendants(pid):
    parents = {}
    for each in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(each.parent.name)] = int(each.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


@pytest.mark.long
@pytest.mark.parametrize(
    "sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda each: each.name
)
@pytest.mark.parametrize("count", [2, 4], ids=["while the server imports", "at work"])
def test_nothing_outlives_a_parent_that_is_stopped(tmp_path, sign, count):
    (tmp_path / "starts.py").write_text(STARTS)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "starts.py")],
        env=os.environ | EFFACE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout.readline() == "begins\n"
    while len(below := descendants(parent.pid)) < count:  # the tracker of multiprocessing, the server, the workers
        assert parent.poll() is None
        time.sleep(0.01)
    parent.send_signal(sign)
    _, err = parent.communicate(timeout=60)
    assert ends(*below)
    assert err.count("Traceback") == (sign == signal.SIGINT)  # that of this program, which does not catch it


UNFIT = {
    "a thread": "import threading, time; threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()",
    "a broken import": "sys.modules['efface.stages.work.measuring'] = None",
    "another torch": "import torch; torch.__file__ += 'x'",
    "an end": "import os; os._exit(3)",
}


@pytest.mark.long
@pytest.mark.parametrize("kind", UNFIT)
def test_workers_are_new_interpreters_if_the_server_cannot_fork(tmp_path, monkeypatch, kind):
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nif 'fork_server' in str(sys.orig_argv): {UNFIT[kind]}\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *FOLDERS]))
    assert {each["server"] for each in results(looked.look)} == {os.getpid()}


@pytest.mark.long
def test_on_other_systems_workers_are_new_interpreters(monkeypatch):
    monkeypatch.setattr(starting.sys, "platform", "darwin")
    assert [each["server"] for _, each in in_workers(looked.look, [1], workers=1)] == [os.getpid()]
