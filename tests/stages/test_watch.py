"""`efface watch`: what it says of a folder that another command works on."""

import json
import os
import re
import signal
import time

import pytest

from efface.execute import advance
from efface.execute.task_status import Statuses, working_on
from efface.stages import watch as stage
from efface.stages.page.folders import kept_folder
from efface.stages.run.display import display
from efface.stages.run.progress import duration
from small.studies import efface, start, write_study

STUDY = {"metrics": ["morf", "lerf"], "fractions": [0.25, 0.5, 0.75]}


@pytest.fixture
def finished(tmp_path):
    write_study(tmp_path, **STUDY)
    done = efface(tmp_path, "all", "study.yml")
    assert done.code == 0, done.err
    return tmp_path / "run"


def without_some(folder, keep):
    """Take lines away from the end, as if the command had not come that far; the others took 2 s each."""
    from efface.store.results import Results

    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    probes = [line for line in lines if "n" in line]
    (folder / "results.jsonl").unlink()
    results = Results(folder)
    for line in probes[:keep]:
        results.append({name: value for name, value in line.items() if name != "digest"} | {"seconds": 2.0})
    return len(probes)


def said(folder):
    (run,) = (each for runs in kept_folder(folder)[0].values() for each in runs)
    return stage.lines_of(run, Statuses([folder]))


def test_a_finished_run_has_nothing_left_and_ends_the_watch(finished, capsys):
    stage.watch(finished, every=60.0)
    assert re.search(r"(\d+) of \1 probes done, nothing left", capsys.readouterr().out)


def test_what_is_left_and_at_work_is_told_with_the_time_that_it_may_take(finished):
    whole = without_some(finished, keep=4)
    with working_on(finished, "mine, test maps", 24.0, "maps"):
        first, at_work = said(finished)
    assert f"4 of {whole} probes done, {whole - 4} left, 4 results in the last 5 minutes" in first
    assert re.search(r"to go, until \d\d:\d\d", first)
    assert re.fullmatch(
        rf"  mine, test maps: 0/24 maps, for [\d.]+ s, process {os.getpid()} on {re.escape(os.uname().nodename)}",
        at_work,
    )
    assert len(said(finished)) == 1, "the line went with the task"


def test_the_lines_are_those_of_the_command_that_works(finished):
    without_some(finished, keep=4)
    with display(24.0, "extract", "maps", tasks=2, folders=[finished]) as live:
        with working_on(finished, "mine, test maps", 12.0, "maps"):
            advance(6.0)
            live.keep(live.look()[0])
            _, command, worker = said(finished)
        assert command.startswith("  extract: 0 %, 0 done, 1 running, 1 left")
        assert f"process {os.getpid()} on " in command
        assert worker.startswith("  mine, test maps: ")
    assert len(said(finished)) == 1, "the command has ended"


def test_a_worker_that_is_gone_or_silent_is_not_told_as_one_that_works(finished):
    without_some(finished, keep=4)
    with working_on(finished, "mine, test maps", 24.0, "maps"):
        (path,) = finished.glob(".worker-*")
        status = json.loads(path.read_text())
    path.write_text(json.dumps(status | {"process": 2**22 + 1}))
    assert "its process has ended" in said(finished)[-1]
    path.write_text(json.dumps(status | {"machine": "another"}))
    assert "no report" not in said(finished)[-1]
    os.utime(path, (time.time() - 300, time.time() - 300))
    assert re.search(r"no report for 5 min 0 s \(one long step, or it hangs, or it was killed\)", said(finished)[-1])


def test_a_run_on_which_nothing_works_says_so(finished, monkeypatch):
    without_some(finished, keep=4)
    monkeypatch.setattr(stage, "RECENT", -1)
    assert said(finished)[1].strip().startswith("nothing is at work")


def test_the_time_left_is_that_of_the_results_that_are_there(finished):
    whole = without_some(finished, keep=20)
    left = re.search(r"(\d+) left, .*?([\d.]+ \w+( [\d.]+ s)?) to go", said(finished)[0])
    assert left, said(finished)
    assert left[2] == duration(2.0 * (whole - 20)), "each result took 2 s, and one task runs at a time"


@pytest.mark.long
def test_the_command_takes_a_study_or_a_folder_and_refuses_what_has_no_plan(finished):
    for given in ("study.yml", "run"):
        done = efface(finished.parent, "watch", given)
        assert done.code == 0, done.err
        assert "nothing left" in done.out
    (finished / "plan.json").unlink()
    done = efface(finished.parent, "watch", "run", "--once")
    assert done.code != 0
    assert "run" in done.err
    done = efface(finished.parent, "watch", "run", "--every", "0")
    assert done.code == 2


SLOW = """
import time


def slow(model, images, targets, *, gain=1.0):
    time.sleep(0.5 * (len(images) > 2))
    return gain * images.mean(1)
"""


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_a_watch_beside_a_run_sees_its_workers_and_a_killed_run_leaves_no_lie(tmp_path, workers):
    methods = [
        {"name": "random", "method": "efface.methods.control.random"},
        {"name": "slow", "method": "slow.slow"},
        {"name": "slower", "method": "slow.slow", "kwargs": {"gain": 2.0}},
    ]
    executor = {"call": "efface.execute.processes", "kwargs": {"workers": workers}}
    write_study(
        tmp_path,
        {"slow": SLOW},
        **STUDY | {"attribution_methods": methods, "executor": executor, "max_batch": 4},
    )
    running = start(tmp_path, "all", "study.yml")
    for name in ("slow", "slower"):
        line = rf"  {name}, test maps: \d+/24 maps, .*process \d+ on "
        until = time.monotonic() + 100
        while not re.search(line, out := efface(tmp_path, "watch", "run", "--once").out) and time.monotonic() < until:
            time.sleep(0.1)
        assert re.search(line, out), out
        assert re.search(rf"  extract: \d+ %, \d done, .*process {running.pid} on ", out)
    os.kill(running.pid, signal.SIGKILL)
    running.join()
    time.sleep(3)  # its workers end with it
    out = efface(tmp_path, "watch", "run", "--once").out
    assert "extract: " not in out
    assert "images/s" not in out
    assert efface(tmp_path, "all", "study.yml").code == 0
    assert not [*(tmp_path / "run").glob(".*.json")]
