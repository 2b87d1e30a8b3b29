"""What a method does beside its call: threads that it leaves, signals to its own process, files that it closes."""

import os
import signal
import time
from pathlib import Path

import pytest

from small.messages import names
from small.studies import STUDY, efface, ended, start, write_study

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BODY = """
import _thread, multiprocessing, os, signal, threading, time
from os import kill as imported
import torch

CALLS = []
ENDED, AT_WORK = threading.Event(), threading.Event()
IS_WORKER = multiprocessing.current_process().name.startswith("Worker")


def change(model):
    while not ENDED.is_set():
        AT_WORK.wait()  # another method
        with torch.no_grad():
            for each in model.parameters():
                each.add_(0.5)
        time.sleep(0.005)


def bad(model, images, targets):
    CALLS.append(1)
    late = len(CALLS) > {trials}
{body}
    return images.sum(1)


def slow(model, images, targets):
    found = []
    AT_WORK.set()
    for _ in range(40):
        time.sleep(0.02)
        found.append(model(images).gather(1, targets[:, None])[:, :, None].detach() * images.mean(1))
    AT_WORK.clear()
    return sum(found)
"""
FRACTIONS = {"metrics": ["morf"], "fractions": [0.5], "out": "run"}
TWO = {"executor": {"call": "efface.execute.processes", "kwargs": {"workers": 2}}}
BEFORE = STUDY["attribution_methods"][0] | {"name": "before"}
IN_WORKERS = "(0 if IS_WORKER else 10**9)"  # a worker does not try methods
SLOW = {"name": "slow", "method": "escaping.slow"}


def escaping(folder, body: str, *, trials: int = 1, first=(), **changes):
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    methods = [*first, {"name": "bad", "method": "escaping.bad"}, SLOW, *STUDY["attribution_methods"]]
    if not body:
        methods = [each for each in methods if each["name"] != "bad"]
    modules = {"escaping": BODY.format(body=lines or "    pass", trials=trials)}
    return write_study(folder, modules, attribution_methods=methods, **FRACTIONS | changes)


def rows(folder) -> set[str]:
    """The rows of the honest methods, without their comparison with others."""
    lines = (folder / "run/report/summary.csv").read_text().splitlines()
    return {",".join(line.split(",")[:5]) for line in lines if not {"bad", "fitted", "before"} & {*line.split(",")}}


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("honest")
    escaping(folder, "")
    assert efface(folder, "all", "study.yml").code == 0
    return rows(folder)


THREADS = {
    "a thread": "threading.Thread(target=change, args=(model,)).start()",
    "a raw thread": "_thread.start_new_thread(change, (model,))",
    "a late thread": "if late: threading.Thread(target=change, args=(model,), name='changes').start()",
    "a timer": "threading.Timer(0.2, change, (model,)).start()",
}


@pytest.mark.long
@pytest.mark.parametrize("kind", THREADS)
def test_a_thread_that_is_left_cannot_change_the_network_of_the_others(tmp_path, honest, kind):
    escaping(tmp_path, THREADS[kind])
    done = efface(tmp_path, "all", "study.yml")
    assert done.code == 0, done.out + done.err
    assert rows(tmp_path) == honest
    assert names(done.out, "warning: attribution_methods.bad: thread join")
    assert "Traceback" not in done.err


@pytest.mark.long
def test_an_idle_thread_of_a_pool_is_innocent(tmp_path, honest):
    pool = "from concurrent.futures import ThreadPoolExecutor\n"
    body = f"{pool}pool = ThreadPoolExecutor(2)\nCALLS.append(pool)\nlist(pool.map(abs, range(4)))"
    escaping(tmp_path, body)
    done = efface(tmp_path, "all", "study.yml")
    assert done.code == 0, done.err
    assert rows(tmp_path) == honest
    assert (tmp_path / "run/maps/bad-test.h5").exists()


@pytest.mark.long
def test_check_names_a_method_that_leaves_a_thread(tmp_path):
    escaping(tmp_path, "threading.Thread(target=ENDED.wait, name='waits').start()")
    done = efface(tmp_path, "check", "study.yml")
    assert done.code == 0, done.err
    assert names(done.out, "warning: bad: thread (waits) join")


@pytest.mark.long
def test_threads_that_end_before_the_call_are_no_matter(tmp_path):
    escaping(tmp_path, "one = threading.Thread(target=abs, args=(1,))\none.start()\none.join()")
    done = efface(tmp_path, "check", "study.yml")
    assert done.code == 0, done.err
    assert "thread" not in done.out


FITTED = """
import torch

CALLS = []


class Learnt:
    def __call__(self, model, images, targets):
        return images.sum(1)

    def fit(self, model, data, *, seed, max_batch):
        CALLS.append(1)
        if len(CALLS) > {trials}:
            {does}
        self.learnt = {{"mean": torch.zeros(2)}}
"""
FITS = {
    "changes the weights": (
        "[each.data.add_(0.5) for each in model.parameters()]",
        "attribution_methods.fitted: changed",
    ),
    "exits": ("__import__('os')._exit(3)", "fitted os._exit(3)"),
    "patches torch": ("torch.nn.ReLU.forward = lambda self, x: -x", ""),
}


@pytest.mark.parametrize("kind", [pytest.param(each, marks=pytest.mark.long) for each in FITS])
@pytest.mark.parametrize("late", [False, True])
def test_a_method_that_learns_leaves_the_network_as_it_was(tmp_path, honest, kind, late):
    does, said = FITS[kind]
    first = [{"name": "fitted", "method": "fitted.Learnt"}]
    escaping(tmp_path, "", first=first)
    (tmp_path / "fitted.py").write_text(FITTED.format(does=does, trials=int(late)))
    done = efface(tmp_path, "all", "study.yml")
    assert done.code == (1 if said else 0), done.err
    assert names(done.err, said)
    if late or not said:
        assert rows(tmp_path) == honest


SIGNALS = {
    "TERM": ("if late: os.kill(os.getpid(), signal.SIGTERM)", "SIGTERM"),
    "INT": ("if late: signal.raise_signal(signal.SIGINT)", "SIGINT"),
    "HUP": ("if late: signal.pthread_kill(threading.get_ident(), signal.SIGHUP)", "SIGHUP"),
    "interrupt": ("if late: _thread.interrupt_main()\nfor _ in range(100): pass", "SIGINT"),
    "imported by name": ("if late: imported(os.getpid(), signal.SIGTERM)", "SIGTERM"),
    "from a thread": (
        "if late: threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGTERM)).start()\nwhile late: abs(1)",
        "SIGTERM",
    ),
    "to the group": ("if late: os.killpg(0, signal.SIGTERM)", "killpg"),
    "to all": ("if late: os.kill(-1, signal.SIGTERM)", "kill(-1"),
}


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "kind", [each if each == "TERM" else pytest.param(each, marks=pytest.mark.long) for each in SIGNALS]
)
def test_a_signal_of_its_own_fails_the_method_alone(tmp_path, honest, kind, workers):
    body, said = SIGNALS[kind]
    escaping(tmp_path, body, trials=1 if workers == 1 else IN_WORKERS, **TWO if workers > 1 else {})
    done = efface(tmp_path, "all", "study.yml")
    assert done.code == 1, done.err
    assert "failed: bad, test:" in done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert rows(tmp_path) == honest
    assert not (tmp_path / "run/maps/bad-test.h5").exists()


@pytest.mark.long
def test_a_signal_to_the_parent_fails_the_method_alone(tmp_path, honest):
    body = "if IS_WORKER: os.kill(os.getppid(), signal.SIGTERM)"
    escaping(tmp_path, body, **TWO)
    done = efface(tmp_path, "all", "study.yml")
    assert done.code == 1, done.err
    assert names(done.err, "failed: bad, test: run")
    assert rows(tmp_path) == honest


@pytest.mark.long
def test_a_thread_that_is_left_cannot_stop_the_run(tmp_path, honest):
    later = "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()"
    escaping(tmp_path, f"if late: {later}", first=[BEFORE])
    done = efface(tmp_path, "all", "study.yml")
    assert done.code in (0, 1), done.err
    assert "thread" in done.err + done.out
    assert rows(tmp_path) == honest


SWALLOWS = """
open('here', 'w').close() if late else None
while late:
    try:
        while True: time.sleep(0.05)
    except BaseException:
        pass
"""


@pytest.mark.parametrize(
    ("second", "workers"),
    [
        (signal.SIGTERM, 1),
        pytest.param(signal.SIGINT, 1, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.long),
    ],
)
def test_a_second_signal_ends_a_run_whose_method_catches_everything(tmp_path, honest, second, workers):
    more = TWO if workers > 1 else {}
    escaping(tmp_path, SWALLOWS, trials=1 if workers == 1 else IN_WORKERS, first=[BEFORE], **more)
    process = start(tmp_path, "all", "study.yml")
    _until(lambda: (tmp_path / "here").exists() and (tmp_path / "run/maps/before-test.h5").exists())
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(1.3)
    began = time.monotonic()
    os.kill(process.pid, second)
    done = ended(process, tmp_path)
    assert time.monotonic() - began < 5
    assert done.code == 128 + second
    assert names(done.err, "efface: another signal same command")
    assert "Traceback" not in done.err
    assert "Warning" not in done.err
    _until(lambda: not _has_processes(process.pid))
    assert (tmp_path / "run/maps/before-test.h5").exists()


@pytest.mark.long
def test_one_signal_ends_a_run_whose_worker_catches_everything(tmp_path):
    escaping(tmp_path, SWALLOWS, trials=IN_WORKERS, **TWO)
    process = start(tmp_path, "all", "study.yml")
    _until((tmp_path / "here").exists)
    began = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    done = ended(process, tmp_path)
    assert time.monotonic() - began < 15
    assert done.code == 130
    _until(lambda: not _has_processes(process.pid))


def _has_processes(session):
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def _until(happened):
    for _ in range(1200):
        if happened():
            return
        time.sleep(0.05)
    pytest.fail("waited a minute for nothing")


CLOSES = {
    "a range": "if late: os.closerange(3, 200)",
    "a range and opens others": "if late:\n    os.closerange(3, 200)\n"
    "    CALLS.append([open('mine', 'w') for _ in range(60)])",
}


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", CLOSES)
def test_a_method_that_closes_the_files_of_efface_is_named(tmp_path, honest, kind, workers):
    trials = 1 if workers == 1 else IN_WORKERS
    escaping(tmp_path, CLOSES[kind], trials=trials, **TWO if workers > 1 else {})
    first = efface(tmp_path, "all", "study.yml")
    assert first.code == 1
    assert names(first.err, "efface: attribution_methods.bad: closed files")
    assert "Traceback" not in first.err
    if (tmp_path / "mine").exists():
        assert (tmp_path / "mine").read_bytes() == b""
    done = first if workers > 1 else efface(tmp_path, "all", "study.yml")
    assert done.code == 1
    assert "failed: bad, test:" in done.err
    assert rows(tmp_path) == honest


ONE = """
if late:
    numbers = [int(each) for each in os.listdir('/proc/self/fd') if 'bad-test.h5' in at(each)]
    for each in numbers: os.close(each)
    CALLS.append([open('mine', 'w') for _ in numbers])
    assert {each.fileno() for each in CALLS[-1]} == {*numbers}
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_maps_are_not_written_into_a_file_of_the_method(tmp_path, honest):
    at = "\n\ndef at(each):\n    try:\n        return os.readlink(f'/proc/self/fd/{each}')\n    except OSError:\n"
    escaping(tmp_path, ONE, trials="2")  # the call before has written the first block of maps
    file = tmp_path / "escaping.py"
    file.write_text(file.read_text() + at + "        return ''\n")
    done = efface(tmp_path, "all", "study.yml")
    assert done.code == 1
    assert names(done.err, "failed: bad, test: bad-test.h5.partial closed")
    assert "Traceback" not in done.err
    assert (tmp_path / "mine").read_bytes() == b""
    assert rows(tmp_path) == honest
