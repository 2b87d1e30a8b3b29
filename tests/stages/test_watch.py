"""`efface watch`: what it says of a folder that another command works on."""

import json
import os
import re
import time

import pytest

from efface.stages import watch as stage
from efface.stages.page.folders import kept_folder
from efface.stages.run.progress import duration
from efface.stages.work.at_work import Subject, noted
from small.studies import efface, write_study

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
    return stage.lines_of(run)


def test_a_finished_run_has_nothing_left_and_ends_the_watch(finished, capsys):
    stage.watch(finished, every=60.0)
    assert re.search(r"(\d+) of \1 probes done, nothing left", capsys.readouterr().out)


def test_what_is_left_and_at_work_is_told_with_the_time_that_it_may_take(finished):
    whole = without_some(finished, keep=4)
    subject = Subject("attribution_methods.mine", "test maps")
    with noted(finished, subject):
        note = next(finished.glob(".at_work-*"))
        os.utime(note, (time.time() - 100, time.time() - 100))
        first, at_work = said(finished)
    assert f"4 of {whole} probes done, {whole - 4} left, 4 results in the last 5 minutes" in first
    assert re.search(r"to go, until \d\d:\d\d", first)
    assert re.fullmatch(
        rf"  attribution_methods.mine, test maps: for 1 min 40 s on {re.escape(os.uname().nodename)}", at_work
    )
    assert len(said(finished)) == 1, "the note went with the task"


def test_a_run_on_which_nothing_works_says_so(finished, monkeypatch):
    without_some(finished, keep=4)
    monkeypatch.setattr(stage, "RECENT", -1)
    assert said(finished)[1].strip().startswith("nothing is at work")


def test_the_time_left_is_that_of_the_results_that_are_there(finished):
    whole = without_some(finished, keep=20)
    left = re.search(r"(\d+) left, .*?([\d.]+ \w+( [\d.]+ s)?) to go", said(finished)[0])
    assert left, said(finished)
    assert left[2] == duration(2.0 * (whole - 20)), "each result took 2 s, and one task runs at a time"


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
