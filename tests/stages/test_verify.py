"""`efface verify`: published numbers are computed again; what differs, or is not here, is told."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from efface.stages.verify import Number
from small.studies import STUDY, efface, write_study

pytestmark = pytest.mark.long
SCRIPT = Path(__file__).parents[2] / "scripts" / "leaderboard.py"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with one published study: its network is stored, and its metrics are frozen and retrained."""
    folder = tmp_path_factory.mktemp("published")
    write_study(folder, metrics=["morf", "roar", {"name": "lerf", "kwargs": {"fractions": [0.5]}}], repeats=3)
    done = efface(folder, "all", "study.yml")
    assert done.code == 0, done.err
    tree = yaml.safe_load((folder / "study.yml").read_text())
    tree["refit"] = tree.pop("fit")
    (folder / "public.yml").write_text(yaml.safe_dump({"x-title": "Small squares"} | tree))
    command = [sys.executable, SCRIPT, "add", STUDY["out"], "small", "--study", "public.yml", "--board", "board"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def copied(published, tmp_path):
    shutil.copytree(published, tmp_path / "copy")
    return tmp_path / "copy"


def rewritten(folder, change):
    path = folder / "board" / "small" / "results.parquet"
    table = pd.read_parquet(path)
    change(table)
    table.to_parquet(path, index=False)


def in_words(path, column):
    table = pd.read_parquet(path)
    table.assign(**{column: table[column].astype(str)}).to_parquet(path, index=False)


def test_every_number_agrees_and_a_sample_is_that_of_its_seed(published):
    done = efface(published, "verify", "board", "--rows", "400")
    assert done.code == 0, done.err
    assert "differs:" not in done.out
    assert "roar, accuracy of mine at 0.3" in done.out
    one, two, other = (efface(published, "verify", "board", "--rows", "3", "--seed", seed).out for seed in "112")
    lines = [[line for line in out.splitlines() if line.startswith("agrees: small: ")] for out in (one, two, other)]
    assert len(lines[0]) == 3
    assert lines[0] == lines[1] != lines[2]


def test_the_document_has_the_same(published):
    done = efface(published, "verify", "board", "--rows", "3", "--json")
    found = json.loads(done.out)
    assert [each["agrees"] for each in found["checked"]] == [True] * 3
    assert {each["study"] for each in found["checked"]} == {"small"}
    assert found["left_out"] == {}


def test_a_number_that_was_changed_is_named(copied):
    def change(table):
        asked = (table.metric == "morf") & (table.kind == "point") & (table["at"] == 0.7)
        table.loc[asked, "value"] += 0.001

    rewritten(copied, change)
    done = efface(copied, "verify", "board", "--rows", "400")
    assert done.code == 1
    wrong = [line for line in done.out.splitlines() if line.startswith("differs: ")]
    assert wrong
    assert all("morf" in line and "at 0.7" in line for line in wrong)
    assert f"{len(wrong)} of" in done.err


def test_studies_that_cannot_be_computed_here_are_left_out_and_counted(copied):
    gone = copied / "board" / "gone"
    shutil.copytree(copied / "board" / "small", gone)
    tree = yaml.safe_load((gone / "study.yml").read_text())
    (gone / "network.pt").unlink()
    (gone / "study.yml").write_text(yaml.safe_dump(tree | {"weights": "not/there.pt"}))
    other = copied / "board" / "other"
    shutil.copytree(copied / "board" / "small", other)
    tree["data"]["kwargs"]["seed"] = 5
    (other / "study.yml").write_text(yaml.safe_dump(tree))
    done = efface(copied, "verify", "board", "--rows", "5")
    assert done.code == 0, done.err
    left = [line for line in done.out.splitlines() if line.startswith("left out: ")]
    assert len(left) == 2
    assert "numbers of gone:" in left[0]
    assert "not/there.pt" in left[0]
    assert "numbers of other: its images here are others than the published ones" in left[1]


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda board: (board / "results.parquet").write_bytes(b"junk"), "results.parquet cannot be read as Parquet"),
        (lambda board: pd.DataFrame({"a": [1]}).to_parquet(board / "results.parquet"), "results.parquet has no column"),
        (lambda board: (board / "study.yml").unlink(), "has no published study"),
        (lambda board: in_words(board / "results.parquet", "value"), "results.parquet column value has no numbers"),
        (lambda board: in_words(board / "results.parquet", "at"), "results.parquet column at has no numbers"),
    ],
)
def test_a_folder_that_is_none_is_refused_in_one_line(copied, break_it, words):
    break_it(copied / "board" / "small")
    done = efface(copied, "verify", "board")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert all(word in done.err for word in words.split())


@pytest.mark.parametrize(
    ("file", "words"),
    [("results.parquet", "Parquet"), ("network.pt", "network.pt"), ("study.yml", "no study"), ("origin.json", "JSON")],
)
def test_a_damaged_study_is_named_and_the_others_are_compared(copied, file, words):
    bad = copied / "board" / "bad"
    shutil.copytree(copied / "board" / "small", bad)
    (bad / file).write_bytes(b"junk")
    done = efface(copied, "verify", "board", "--rows", "40")
    assert done.code == 1
    assert "agrees: small: " in done.out
    assert "bad: " not in done.out
    (line,) = (line for line in done.err.splitlines() if line.startswith("efface:"))
    assert "board/bad" in line
    assert words in line


def test_overrides_are_written_into_the_stored_study(copied):
    command = [sys.executable, SCRIPT, "add", STUDY["out"], "again", "--study", "public.yml", "--board", "board"]
    subprocess.run([*command, "--changes", "max_batch=5"], cwd=copied, check=True, capture_output=True)
    origin = json.loads((copied / "board" / "again" / "origin.json").read_text())
    assert origin["command"] == "efface all public.yml max_batch=5"
    stored = yaml.safe_load((copied / "board" / "again" / "study.yml").read_text())
    assert stored["max_batch"] == 5
    done = efface(copied, "verify", "board", "--rows", "12")
    assert done.code == 0, done.err
    assert "agrees: again: " in done.out


def test_a_check_of_no_number_is_no_success(copied):
    def change(table):
        table.loc[table.metric != "roar", "kind"] = "other"
        table[["low", "high"]] = float("nan")

    rewritten(copied, change)
    done = efface(copied, "verify", "board")
    assert done.code == 1
    assert "no number that can be computed again" in done.err


def test_a_trained_number_must_lie_in_its_interval_and_another_one_be_equal():
    number = Number("s", "roar", "accuracy", "a", "point", 0.5, 0.4, 0.3, 0.5, trained=True)
    tried = {0.29: False, 0.3: True, 0.49: True, 0.51: False, float("nan"): False}
    assert {value: number.agrees(value) for value in tried} == tried
    frozen = number._replace(trained=False)
    assert [frozen.agrees(value) for value in (0.4, 0.40009, 0.4002, float("nan"))] == [True, True, False, False]
    large = frozen._replace(value=400.0)
    assert large.agrees(400.03)
    assert not large.agrees(400.05)


def test_the_page_has_the_stored_numbers_and_an_unfinished_run_is_not_stored(copied):
    command = [sys.executable, SCRIPT, "page", "--board", "board", "--out", "page.md"]
    made = subprocess.run(command, cwd=copied, capture_output=True, check=True)
    assert b"written" in made.stdout
    page = (copied / "page.md").read_text()
    assert "## Small squares" in page
    table = pd.read_parquet(copied / "board" / "small" / "results.parquet")
    own = table[(table.kind == "summary") & (table.metric == "morf") & (table.score == "accuracy")]
    assert all(f"{value:.3f}" in page for value in own.value)
    for file in (copied / STUDY["out"] / "scores").glob("*.npz"):
        file.unlink()
    command = [sys.executable, SCRIPT, "add", STUDY["out"], "small", "--study", "public.yml", "--board", "board"]
    refused = subprocess.run(command, check=False, cwd=copied, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "finish it first" in refused.stderr


def test_the_page_of_the_repository_is_that_of_its_stored_numbers(tmp_path):
    subprocess.run([sys.executable, SCRIPT, "page", "--out", tmp_path / "page.md"], check=True, capture_output=True)
    docs = SCRIPT.parents[1] / "docs"
    assert (tmp_path / "page.md").read_text() == (docs / "leaderboard.md").read_text()
