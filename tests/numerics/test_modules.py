"""Each module of efface is covered by a golden output, or holds no numbers that a key tells; none is forgotten."""

from pathlib import Path

import efface
from efface.plug import words
from efface.store.keys import AREAS
from numerics import names

ROOT = Path(efface.__file__).parent
NO_NUMBERS = "words, contracts or the order of work"
SHOWN = "the page: its numbers have no key, and it is made anew when any code of it changes"
COVERED = {
    "base/draws": "draws",
    "store/arrays": "store",
    "store/maps": "store",
    "store/results": "store",
    "store/tensors": "store",
    "store/atomic": NO_NUMBERS,
    "store/datasets": NO_NUMBERS,
    "store/file_name": NO_NUMBERS,
    "store/links": NO_NUMBERS,
    "store/own_file": NO_NUMBERS,
    "store/partial_rows": NO_NUMBERS,
    "store/plain_name": NO_NUMBERS,
    "base/shown": NO_NUMBERS,
    "store/locks": NO_NUMBERS,
    "store/sealed": NO_NUMBERS,
    "store/foreign": NO_NUMBERS,
    "store/foreign_write": NO_NUMBERS,
    "store/keys": NO_NUMBERS,
    "base/types": NO_NUMBERS,
    "plug": NO_NUMBERS,
    "study": NO_NUMBERS,
    "execute": NO_NUMBERS,
    "erase/batches": "erase",
    "erase/masking": "erase",
    "erase/ranking": "erase",
    "erase/units": "unit",
    "erase/blur": "imputer",
    "erase/post": "post",
    "erase/contract": NO_NUMBERS,
    "impute": "imputer",
    "training/loop": "train",
    "training/checkpoint": "train",
    "training/step": "train",
    "training/data_parallel": "train",
    "training/several": NO_NUMBERS,
    "training/told": NO_NUMBERS,
    "training/batch": "train",
    "training/settings": "train",
    "training/presets": NO_NUMBERS,
    "training/generate": "generate",
    "training/attack": "attack",
    "training/augment": "augmentation",
    "training/regularize": "regularizer",
    "models/evaluation": "evaluate",
    "models/fast_copy": "evaluate",
    "models/memory": "evaluate",
    "models/scores": "evaluate",
    "models/activation": "evaluate",
    "models/layers": "explain",
    "models/cut": "explain",
    "models/hookable": "method",
    "models": "model",
    "data": "data",
    "methods/calling": "explain",
    "methods/adapters": "method",
    "methods/nested": "explain",
    "methods": "method",
    "metrics/probes/probe": NO_NUMBERS,
    "metrics/probes/description": NO_NUMBERS,
    "metrics/probes": "erase",
    "metrics/formula": "measure",
    "metrics/shared": "metric",
    "metrics": "metric",
    "report/gallery": "pictures",
    "report/grid": "pictures",
    "report": SHOWN,
    "stages/page": SHOWN,
    "stages/run/method_calls": "explain",
    "stages": NO_NUMBERS,
    "api": NO_NUMBERS,
    "commands": NO_NUMBERS,
    "__init__": NO_NUMBERS,
    "__main__": NO_NUMBERS,
}
"""What covers a module or a folder: the kind of golden outputs, or why there is none. The longest path counts."""


def modules():
    """Every module by its path, without a suffix; a package by its folder's name."""
    found = (each.relative_to(ROOT).with_suffix("") for each in ROOT.rglob("*.py"))
    return sorted(str(each.parent if each.name == "__init__" and each.parent != Path() else each) for each in found)


def covering(module):
    """The entry of a module: its own, or that of the nearest folder that has one."""
    parts = module.split("/")
    return next((each for end in range(len(parts), 0, -1) if (each := "/".join(parts[:end])) in COVERED), "")


def test_every_module_has_an_entry_and_every_entry_a_module():
    found = {module: covering(module) for module in modules()}
    packages = {"base", "erase", "training", "store"}  # their own files hold no code, their modules have entries
    assert [module for module, entry in found.items() if not entry and module not in packages] == []
    assert set(COVERED) - set(found.values()) == set()


def test_every_golden_kind_covers_a_module():
    kinds = {name.partition(".")[0] for name in names()}
    assert {told for told in COVERED.values() if told not in (NO_NUMBERS, SHOWN)} == kinds
    assert kinds == {*AREAS} | ({*words.KINDS} - {"executor", "preset"})


def test_the_packages_without_an_entry_hold_no_code():
    for package in ("erase", "training", "store"):
        assert "def " not in (ROOT / package / "__init__.py").read_text()
