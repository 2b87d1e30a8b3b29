"""Modules import only from the folders below theirs, and each layer of a network is found by name elsewhere.

The order of the folders is that of docs/architecture.md. It is read from the syntax trees, so that an import inside a
function counts too.
"""

import ast
from pathlib import Path

import pytest

import efface

ROOT = Path(efface.__file__).parent
LAYERS = (
    {"base"},
    {"store", "execute"},
    {"plug"},
    {"models"},
    {"data", "erase"},
    {"impute", "methods"},
    {"training"},
    {"metrics"},
    {"study"},
    {"report"},
    {"stages"},
    {"api"},
    {"commands"},
    {"__main__"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
CONFINED = ("captum", "zennit", "skimage", "matplotlib", "tensorboard", "timm", "transformers", "datasets")
FILES = sorted(ROOT.rglob("*.py"))


def imported(file):
    """Every module that a file names in an import, in full."""
    package = ["efface", *file.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def tops(file):
    """The modules and shelves of efface that a file imports from."""
    names = {tuple(name.split(".")[:2]) for name in imported(file)}
    return {name[1] for name in names if name[0] == "efface" and len(name) == 2 and name[1] in LEVEL}


def top(file):
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_module_has_a_layer():
    assert {top(file) for file in FILES} - {"__init__"} <= set(LEVEL)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_down(file):
    here = top(file)
    for other in tops(file) - {here}:
        assert here != "__init__" or other == "plug", (
            "the package itself imports nothing, so that -h is answered at once"
        )
        assert here == "__init__" or LEVEL[other] < LEVEL[here], f"{here} imports {other}"


@pytest.mark.long
def test_optional_and_slow_packages_are_imported_in_one_file_each():
    for package in CONFINED:
        users = [file.name for file in FILES if any(name.split(".")[0] == package for name in imported(file))]
        # figures, and what surrounds their axes; a unit and a fill, which are two functions of one library
        most = 2 if package in ("matplotlib", "skimage") else 1
        assert len(users) <= most, (package, users)


def test_nothing_of_efface_needs_its_tests_or_scripts():
    for file in FILES:
        assert not {name.split(".")[0] for name in imported(file)} & {"tests", "scripts", "conftest"}
