"""Append-only JSON lines."""

import errno
import json
import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest

from efface.store import keys
from efface.store.keys import NUMERICS, version, versions
from efface.store.locks import locked, only_one
from efface.store.results import Results, Score
from small.messages import words


def score(n=5, shift=0.0):
    values = {"accuracy": np.arange(n) % 2 == 0, "probability": np.linspace(0, 1, n, dtype=np.float32) + shift}
    return Score(values)


def test_what_is_appended_is_read_again(tmp_path):
    results = Results(tmp_path)
    results.append({"key": "a", "seconds": 1.5}, score())
    results.append({"key": "b", "note": "Ångström"})
    for found in (results, Results(tmp_path)):
        assert set(found.records) == {"a", "b"}
        assert "a" in found
        assert "b" in found
        assert "c" not in found
        assert found.score("a").n == score().n
        for name, values in score().values.items():
            assert np.array_equal(found.score("a").values[name], values)
            assert found.score("a").values[name].dtype == values.dtype
    assert [json.loads(line)["key"] for line in results.path.read_text().splitlines()] == ["a", "b"]


def test_the_last_line_of_a_key_counts(tmp_path):
    for shift in (0.0, 0.25):
        Results(tmp_path).append({"key": "a"}, score(shift=shift))
    assert Results(tmp_path).score("a").mean("probability") == pytest.approx(0.75)


def test_every_torn_last_line_is_dropped_and_cut_on_the_next_append(tmp_path):
    results = Results(tmp_path)
    results.append({"key": "a"})
    whole = results.path.read_bytes()
    results.append({"key": "bb"})
    second = results.path.read_bytes()[len(whole) :]
    for cut in range(len(second)):
        results.path.write_bytes(whole + second[:cut])
        found = Results(tmp_path)
        assert set(found.records) == {"a"}
        found.append({"key": "bb"})
        assert results.path.read_bytes() == whole + second


def test_killed_between_values_and_line(tmp_path):
    results = Results(tmp_path)
    results.append({"key": "a"}, score())
    line = results.path.read_bytes()
    results.path.write_bytes(b"")  # the values are there, the line is not
    assert "a" not in Results(tmp_path)
    Results(tmp_path).append({"key": "a"}, score())
    assert results.path.read_bytes() == line
    (tmp_path / "scores" / "a.npz").unlink()  # the line without its values: computed again
    assert "a" not in Results(tmp_path)


EDITS = {
    "torn": lambda line: line[: len(line) // 2],
    "another number": lambda line: line.replace("5", "6"),
    "another key": lambda line: line.replace('"b"', '"a"'),
    "no digest": lambda line: json.dumps({name: each for name, each in json.loads(line).items() if name != "digest"}),
    "a list": lambda line: "[]",
    "a number": lambda line: "3",
    "a word": lambda line: '"a key"',
    "no key": lambda line: '{"no": 1}',
    "a list for a key": lambda line: line.replace('"b"', "[1]"),
    "deep": lambda line: '{"key": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "zeros": lambda line: "\0\0",
}


UNFIT = {
    "seconds that are no time": {"seconds": float("nan")},
    "seconds before 0": {"seconds": -1},
    "seconds of text": {"seconds": "5"},
    "a probe of text": {"probe": "morf"},
    "a probe without a word": {"probe": {"probe": 3}},
    "a method of a list": {"method": ["a"]},
    "a count of text": {"n": "5"},
    "a control character": {"method": "a\x0bb"},
    "a half of a pair": {"probe": {"probe": "a\ud800"}},
    "a control character in a key": {"a\0": 1},
    "a long text": {"note": "a" * 20_000},
}


@pytest.mark.parametrize("fields", UNFIT)
def test_a_line_whose_fields_no_page_can_show_does_not_count(tmp_path, capsys, fields):
    row = {"key": "a"} | UNFIT[fields]
    (tmp_path / "results.jsonl").write_text(json.dumps(row | {"digest": keys.key(row)}) + "\n")
    assert not Results(tmp_path).records
    assert "results.jsonl:1: " in capsys.readouterr().err


@pytest.mark.parametrize("edit", EDITS)
def test_a_line_that_was_edited_does_not_count_and_is_set_aside(tmp_path, capsys, edit):
    results = Results(tmp_path)
    for key in "abc":
        results.append({"key": key, "seconds": 5})
    lines = results.path.read_text().splitlines()
    bad = EDITS[edit](lines[1])
    results.path.write_text("\n".join([lines[0], bad, lines[2]]) + "\n")
    found = Results(tmp_path)
    assert set(found.records) == {"a", "c"}
    assert found.records["a"]["seconds"] == 5
    assert "results.jsonl:2: " in capsys.readouterr().err
    found.append({"key": "b", "seconds": 5})
    assert sorted(results.path.read_text().splitlines()) == sorted(lines)
    assert (tmp_path / "results.jsonl.damaged").read_text() == bad + "\n"
    assert set(Results(tmp_path).records) == set("abc")
    assert capsys.readouterr().err == ""


def test_a_line_that_is_no_text_does_not_count(tmp_path, capsys):
    results = Results(tmp_path)
    results.append({"key": "a"})
    results.path.write_bytes(results.path.read_bytes() + b"\xff\xfe\n")
    assert set(Results(tmp_path).records) == {"a"}
    assert "results.jsonl:2: " in capsys.readouterr().err


def test_blank_lines_and_ends_of_lines_of_other_systems_are_no_damage(tmp_path, capsys):
    results = Results(tmp_path)
    for key in "ab":
        results.append({"key": key})
    results.path.write_bytes(results.path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\n")
    assert set(Results(tmp_path).records) == {"a", "b"}
    assert capsys.readouterr().err == ""


def test_separators_of_unicode_do_not_split_a_line(tmp_path):
    results = Results(tmp_path)
    results.append({"key": "a", "note": "one\u2028two\x85three"})
    results.path.write_text(json.dumps(results.records["a"], ensure_ascii=False) + "\n")
    assert Results(tmp_path).records["a"]["note"] == "one\u2028two\x85three"


@pytest.mark.parametrize("damage", ["flip", "cut", "swap", "no seal", "folder"])
def test_values_that_do_not_fit_their_seal_are_computed_again(tmp_path, capsys, damage):
    results = Results(tmp_path)
    for key, shift in (("a", 0.0), ("b", 0.5)):
        results.append({"key": key}, score(shift=shift))
    path, content = tmp_path / "scores" / "a.npz", bytearray((tmp_path / "scores" / "a.npz").read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "no seal":
        np.savez(path, **score().values)
    else:
        other = (tmp_path / "scores" / "b.npz").read_bytes()
        path.write_bytes({"flip": bytes(content), "cut": bytes(content[:-1]), "swap": other}[damage])
    found = Results(tmp_path)
    assert "a" not in found
    assert "b" in found
    assert "a.npz" in capsys.readouterr().err
    found.append({"key": "a"}, score())
    assert Results(tmp_path).score("a").mean("probability") == pytest.approx(0.5)


HOLD = """
import sys, time
from pathlib import Path
from efface.store.locks import only_one
with only_one(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.long
def test_a_second_process_is_locked_out_and_a_killed_one_is_not_waited_for(tmp_path):
    folder = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        said = f"{holder.pid} wait out="
        for _ in range(2):
            with pytest.raises(ValueError, match=words(said)), only_one(folder):
                pass
    finally:
        holder.kill()
        holder.communicate()
    with only_one(folder):
        assert (folder / ".owner").read_text() == str(os.getpid())


def test_the_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(KeyError), only_one(tmp_path):
        raise KeyError
    with only_one(tmp_path):
        assert multiprocessing.active_children() == []


def test_a_value_without_a_mean_is_null_so_that_every_line_is_json(tmp_path):
    results = Results(tmp_path / "two" / "folders")
    results.append({"key": "a"}, Score({"none": np.full(3, np.nan), "some": np.array([np.nan, 2.0])[[1, 0, 0]]}))
    (line,) = results.path.read_text().splitlines()

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    found = json.loads(line, parse_constant=refuse)
    assert found["none"] is None
    assert found["some"] == 2.0


def test_the_form_of_a_key_is_16_hexadecimal_digits_of_sha_256():
    assert keys.key({"b": 1, "a": [1.5, "x", None]}) == "b37be4ba3e9bf206"
    assert keys.key({"a": [1.5, "x", None], "b": 1}) == keys.key({"b": 1, "a": [1.5, "x", None]})


def test_a_version_is_one_until_it_is_raised(monkeypatch):
    assert versions("train", "method.rise") == {"train": 1, "method.rise": 1}
    monkeypatch.setitem(NUMERICS, "train", 2)
    assert version("train") == 2
    assert versions("train", "method.rise") == {"train": 2, "method.rise": 1}


def test_a_disk_without_locks_is_told_and_worked_on(tmp_path, monkeypatch, capsys):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", unsupported)
    with only_one(tmp_path), locked(tmp_path / "other.lock"):
        pass
    assert "no file locks" in capsys.readouterr().err
