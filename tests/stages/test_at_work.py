"""A method that ends its process: the next command names it, and everything else is as without it."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from efface.execute.pool import WorkerDiedError, in_workers
from efface.stages.work.at_work import Subject, ended_in, forget, is_crash, left, noted
from small.messages import names
from small.studies import STUDY, efface, write_study

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ENDING = """
import ctypes
from os import _exit

CALLS = []


def crash(model, images, targets):
    CALLS.append(1)
    if len(CALLS) > {calls}:
        ctypes.string_at(0)
    return images.sum(1)


def leave(model, images, targets):
    CALLS.append(1)
    if len(CALLS) > {calls}:
        _exit(3)
    return images.sum(1)


def swallow(model, images, targets):
    CALLS.append(1)
    while len(CALLS) > {calls}:
        try:
            while True:
                pass
        except BaseException:
            pass
    return images.sum(1)
"""
FRACTIONS = {"metrics": ["morf"], "fractions": [0.5], "out": "run"}


def ending(folder, method: str, calls: int, **changes):
    methods = [*STUDY["attribution_methods"][:1], {"name": "bad", "method": f"ending.{method}"}]
    methods += STUDY["attribution_methods"][1:]
    return write_study(
        folder, {"ending": ENDING.format(calls=calls)}, attribution_methods=methods, **FRACTIONS | changes
    )


def rows(folder) -> set[str]:
    return {line for line in (folder / "run/report/summary.csv").read_text().splitlines() if "bad" not in line}


@pytest.fixture
def honest(tmp_path):
    folder = tmp_path / "honest"
    folder.mkdir()
    write_study(folder, **FRACTIONS)
    assert efface(folder, "all", "study.yml").code == 0
    return rows(folder)


def methods_in(lines) -> set[str]:
    return {line.split(",")[2] for line in lines}


@pytest.mark.parametrize(
    ("method", "calls", "said"),
    [
        pytest.param("crash", 0, "'Segmentation fault' ending.py:11", marks=pytest.mark.long),  # in the trial
        pytest.param(
            "crash", 1, "'Segmentation fault' ending.py:11", marks=pytest.mark.long
        ),  # while maps are extracted
        pytest.param("leave", 0, "without an error", marks=pytest.mark.long),
        pytest.param("leave", 1, "without an error", marks=pytest.mark.long),
    ],
)
def test_the_next_command_names_it_and_goes_on(tmp_path, honest, method, calls, said):
    folder = tmp_path / "run_of_it"
    folder.mkdir()
    ending(folder, method, calls)
    first = efface(folder, "all", "study.yml")
    assert first.code in (-11, 3)
    second = efface(folder, "all", "study.yml")
    assert second.code == 1
    assert names(second.err, f"bad, test: {said}")
    assert "Traceback" not in second.err
    assert methods_in(rows(folder)) == methods_in(honest)
    assert {line.split(",")[3] for line in rows(folder)} == {line.split(",")[3] for line in honest}
    assert not (folder / "run/maps/bad-test.h5").exists()
    (folder / "ending.py").write_text(ENDING.format(calls=10**9))  # the author mends it
    third = efface(folder, "all", "study.yml")
    assert third.code == 0, third.err
    assert (folder / "run/maps/bad-test.h5").exists()
    assert not [*(folder / "run").glob(".at_work*")]


@pytest.mark.long
def test_a_method_that_catches_the_end_of_its_time_ends_its_process_and_is_named(tmp_path):
    methods = [STUDY["attribution_methods"][0], {"name": "bad", "method": "ending.swallow", "timeout": 1}]
    write_study(tmp_path, {"ending": ENDING.format(calls=1)}, attribution_methods=methods, **FRACTIONS)
    first = efface(tmp_path, "all", "study.yml")
    assert first.code == 1
    assert names(first.err, "caught end time")
    second = efface(tmp_path, "all", "study.yml")
    assert second.code == 1
    assert names(second.err, "bad, test:")
    assert "random" in (tmp_path / "run/report/summary.csv").read_text()


@pytest.mark.long
def test_with_workers_the_others_go_on_in_the_same_command(tmp_path, honest):
    folder = tmp_path / "run_of_it"
    folder.mkdir()
    ending(folder, "crash", 1, executor={"call": "efface.execute.processes", "kwargs": {"workers": 2}}, max_batch=8)
    (folder / "ending.py").write_text(ENDING.format(calls="1 + (len(images) < 8) * 10**9"))  # a trial has two images
    ended = efface(folder, "all", "study.yml")
    assert ended.code == 1
    assert names(ended.err, "bad, test: 'Segmentation fault' ending.py:11")
    assert methods_in(rows(folder)) == methods_in(honest)


def test_check_refuses_a_method_that_crashed(tmp_path):
    ending(tmp_path, "crash", 1)
    assert efface(tmp_path, "all", "study.yml").code == -11
    ended = efface(tmp_path, "check", "study.yml")
    assert ended.code == 1
    assert names(ended.err, "attribution_methods.bad: 'Segmentation fault' ending.py:11")


def test_check_writes_no_folder_and_shows_the_place_of_a_crash(tmp_path):
    ending(tmp_path, "crash", 0)
    ended = efface(tmp_path, "check", "study.yml")
    assert ended.code == -11
    assert names(ended.err, "Segmentation fault ending.py")
    assert not (tmp_path / "run").exists()


def test_a_note_is_there_only_while_the_work_runs(tmp_path):
    subject = Subject("m", "test maps")
    with noted(tmp_path, subject):
        (end,) = left(tmp_path).values()
        assert not is_crash(end)
        assert ended_in(tmp_path, subject) == end
        assert ended_in(tmp_path, Subject("m", "train maps")) is None
    assert left(tmp_path) == {}
    with pytest.raises(ValueError, match="own"), noted(tmp_path, subject):
        raise ValueError("own")
    assert left(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_note_stays_if_the_work_closed_its_file_and_is_then_stopped(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_closes_and_is_stopped, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 130
    assert ended_in(tmp_path, Subject("m", "test maps")) is not None
    assert (tmp_path / "mine").read_text() == "theirs"


def _closes_and_is_stopped(folder):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with noted(folder, Subject("m", "test maps")):
            (note,) = folder.iterdir()
            numbers = [int(each.name) for each in Path("/proc/self/fd").iterdir() if _leads_to(note, each)]
            for each in numbers:
                os.close(each)
            mine = [(folder / "mine").open("w") for _ in numbers]  # under the numbers of efface's files
            signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        for each in mine:
            each.write("theirs")
            each.close()
        os._exit(130)


def _leads_to(path, link) -> bool:
    try:
        return os.path.samestat(link.stat(), path.stat())
    except OSError:
        return False


def test_notes_are_forgotten_by_name(tmp_path):
    texts = {}
    for name, part in (("m", "a"), ("m", "b"), ("n", "a")):
        with noted(tmp_path, Subject(name, part)):
            (note,) = tmp_path.iterdir()
            texts[note] = note.read_text()
    for note, text in texts.items():
        note.write_text(text)
    assert set(left(tmp_path)) == {"m", "n"}
    forget(tmp_path, "m")
    assert set(left(tmp_path)) == {"n"}


@pytest.mark.parametrize("place", ["nowhere", "a file"])
def test_without_a_place_for_it_there_is_no_note(tmp_path, place):
    (tmp_path / "a file").write_text("")
    with noted(tmp_path / place, Subject("m", "p")):
        assert left(tmp_path / place) == {}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a file"]


def _end(_task):
    os._exit(7)


@pytest.mark.long
def test_one_worker_is_a_process_of_its_own():
    with pytest.raises(WorkerDiedError, match="worker process died"):
        list(in_workers(_end, [1], workers=1))


def test_a_link_in_place_of_a_note_is_not_written_through(tmp_path):
    outside, folder, subject = tmp_path / "outside", tmp_path / "run", Subject("m", "p")
    folder.mkdir()
    outside.write_text("theirs")
    with noted(folder, subject):
        (note,) = folder.iterdir()
    note.symlink_to(outside)
    with noted(folder, subject):
        assert left(folder).keys() == {"m"}
    assert outside.read_text() == "theirs"
    assert list(folder.iterdir()) == []
