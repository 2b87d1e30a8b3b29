"""Every area and plug-in gives the numbers that its golden output holds; none is without one."""

import pytest

from efface.metrics import names as metric_names
from efface.plug import words
from efface.store.keys import NUMERICS
from numerics import compare, declared, files, names, table, versions
from numerics.files import summary

FROM_ELSEWHERE = {"cifar10", "cifar100", "mnist", "fashion_mnist", "svhn", "imagenet10", "timm", "huggingface"}
"""Data sets that are downloaded, or whose folders nobody but their owner has. Networks of other packages, whose own
answers are the oracle in tests/models/test_models_elsewhere.py. Sets of the datasets library, whose oracle is
image_folder in tests/data/test_huggingface_data.py."""
KINDS = tuple(kind for kind in words.KINDS if kind not in ("executor", "preset", "metric"))


@pytest.mark.long
@pytest.mark.parametrize("name", names())
def test_numbers_are_those_of_the_golden_file(name):
    assert compare([name]) == []


def test_the_golden_files_hold_no_other_names():
    assert sorted(versions()) == sorted(names())


def is_covered(kind, word):
    if word in ("captum", "zennit"):  # one output for each algorithm of these libraries
        return any(name.startswith(f"{kind}.{word}.") for name in names())
    return f"{kind}.{word}" in names()


@pytest.mark.parametrize("kind", KINDS)
def test_every_plug_in_has_a_golden_output(kind):
    known = words.index(kind)
    assert known
    assert [word for word in known if word not in FROM_ELSEWHERE and not is_covered(kind, word)] == []


def test_every_metric_has_a_golden_output():
    assert [name for name in metric_names() if f"metric.{name}" not in names()] == []


def test_a_summary_tells_small_changes_apart():
    assert summary([1, 2, 3])["values"] == [1, 2, 3]
    assert summary([1.0, float("nan")])["values"] == [1.0, "nan"]
    many = [float(each) for each in range(100)]
    swapped = [*many[:50], many[51], many[50], *many[52:]]
    assert summary(many)["mix"] != summary(swapped)["mix"]
    assert summary(list(range(100)))["sha256"] != summary(list(range(1, 101)))["sha256"]


def test_every_declared_version_is_of_a_golden_output():
    assert set(NUMERICS) - {declared(name) for name in names()} == set()
    assert all(isinstance(number, int) and number > 1 for number in NUMERICS.values())


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """One golden output, in a folder of its own, whose number the test sets."""
    number = {"value": 1.0}
    monkeypatch.setattr(files, "FOLDER", tmp_path)
    monkeypatch.setitem(table.OUTPUTS, "post.made_up", lambda: {"value": number["value"]})
    assert files.write(["post.made_up"]) == []
    return number


@pytest.mark.parametrize("raised", ["post.made_up", "draws"])
def test_numbers_that_moved_are_written_only_under_a_raised_version(made_up, monkeypatch, raised):
    if raised == "draws":
        monkeypatch.setitem(table.OUTPUTS, "draws", lambda: {"value": 3.0})
        assert files.write(["draws"]) == []
    made_up["value"] = 2.0
    (told,) = compare(["post.made_up"])
    assert "raise NUMERICS['post.made_up']" in told
    (refused,) = files.write(["post.made_up"])
    assert "raise NUMERICS['post.made_up']" in refused
    monkeypatch.setitem(NUMERICS, raised, 2)
    assert files.write(["post.made_up"]) == []
    assert compare(["post.made_up"]) == []


def test_a_raised_version_asks_for_the_golden_file(made_up, monkeypatch):
    monkeypatch.setitem(NUMERICS, "post.made_up", 2)
    (told,) = compare(["post.made_up"])
    assert "is kept with version 1 of post.made_up, which is 2 now" in told
