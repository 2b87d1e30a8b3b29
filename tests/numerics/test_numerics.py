"""Every area and plug-in gives the numbers that its golden output holds; none is without one."""

import importlib
import inspect
import pkgutil

import pytest

from efface.metrics import names as metric_names
from efface.store.keys import NUMERICS
from numerics import compare, declared, files, names, table, versions
from numerics.files import summary

FROM_ELSEWHERE = {"cifar10", "cifar100", "mnist", "fashion_mnist", "svhn", "imagenet10"}
"""Data sets that are downloaded, or whose folders nobody but their owner has."""
PARTS = {
    "folded",
    "FittedInner",
    "fast_copy",
    "evaluating_fast",
    "find_layer",
    "last_convolution",
    "full_grad_parts",
    "nonlinearity",
    "started",
    "normalisation",
    "pattern_network",
    "target_scores",
    "grouped_folder",
    "average_over_paths",
}
"""Functions that a study does not name: outputs of those that call them show what they do."""


@pytest.mark.parametrize("name", names())
def test_numbers_are_those_of_the_golden_file(name):
    assert compare([name]) == []


def test_the_golden_files_hold_no_other_names():
    assert sorted(versions()) == sorted(names())


def modules(package):
    found = importlib.import_module(package)
    yield found
    for each in pkgutil.walk_packages(getattr(found, "__path__", []), f"{package}."):
        yield importlib.import_module(each.name)


def own(package):
    """The public functions and classes that are written in a package, with the names that it knows them by."""
    for module in modules(package):
        for name, found in vars(module).items():
            public = not name.startswith(("_", "check_")) and (inspect.isfunction(found) or inspect.isclass(found))
            if public and getattr(found, "__module__", "").startswith(package):
                yield name, found


def positional(found):
    """The names of what it is called with by place; of a class, what its instances are called with."""
    if inspect.isclass(found):
        found = vars(found).get("__call__")
    if found is None:
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(found).parameters.values()
    return [each.name for each in parameters if each.kind in kinds and each.name != "self"]


def begins(*expected):
    return lambda found: positional(found) == list(expected)


def gives(words, *, by_name=False):
    """Functions of this return type, in words; by_name: whose arguments have names, all of them."""
    return lambda found: (
        inspect.isfunction(found)
        and words in str(inspect.signature(found).return_annotation)
        and not (by_name and positional(found))
    )


SHELVES = (
    ("imputer", "efface.impute", begins("images", "removed")),
    ("post", "efface.erase.post", begins("maps")),
    ("augmentation", "efface.training.augment", begins("images", "seeds")),
    ("attack", "efface.training.attack", begins("network", "images", "targets")),
    ("method", "efface.methods", begins("model", "images", "targets")),
    ("unit", "efface.erase.units", begins("images")),
    ("regularizer", "efface.training.regularize", gives("Term")),
    ("model", "efface.models", gives("nn.modules.module.Module")),
    ("data", "efface.data", gives("Split]", by_name=True)),
)
"""Kinds of plug-ins, where they are, and what tells them from helpers beside them."""


def plugins():
    """Each plug-in's kind and the names that it is known by."""
    found = {}
    for kind, package, is_one in SHELVES:
        for name, each in own(package):
            if is_one(each):
                found.setdefault((kind, id(each)), (kind, set()))[1].add(name)
    return [(kind, known) for kind, known in found.values() if not known & (FROM_ELSEWHERE | PARTS)]


def is_covered(kind, known):
    if known == {"attribute"}:  # the other libraries' algorithms, a name each
        return {"method.captum", "method.zennit"} <= {name.rpartition(".")[0] for name in names()}
    if known == {"load"}:  # its word is the module's name
        return "model.torchvision" in names()
    return any(f"{kind}.{name}" in names() for name in known)


def test_every_plug_in_has_a_golden_output():
    found = [f"{kind}: {', '.join(sorted(known))}" for kind, known in plugins() if not is_covered(kind, known)]
    assert found + [name for name in metric_names() if f"metric.{name}" not in names()] == []


def test_every_kind_of_plug_in_is_found():
    kinds = {kind for kind, _ in plugins()}
    assert kinds == {"imputer", "post", "augmentation", "attack", "method", "unit", "regularizer", "model", "data"}
    assert len(plugins()) > 80


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
    monkeypatch.setitem(table._OUTPUTS, "post.made_up", lambda: {"value": number["value"]})
    assert files.write(["post.made_up"]) == []
    return number


@pytest.mark.parametrize("raised", ["post.made_up", "draws"])
def test_numbers_that_moved_are_written_only_under_a_raised_version(made_up, monkeypatch, raised):
    if raised == "draws":
        monkeypatch.setitem(table._OUTPUTS, "draws", lambda: {"value": 3.0})
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
