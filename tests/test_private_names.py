"""Tests reach efface by its public names: a name that begins with an underscore may go or change without a word."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
BY_NAME = {"setattr", "delattr", "getattr", "hasattr", "patch", "object", "import_module", "resolve"}
"""Functions that take the name of an attribute, or a dotted path, as a string."""


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def is_of_efface(module):
    return module is not None and module.split(".")[0] == "efface"


def has_private_part(path):
    return any(is_private(part) for part in path.split("."))


def root(node):
    """The name that a chain of attributes begins with."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def imports(tree):
    """The names that imports of efface bind, and the paths that they import."""
    bound, paths = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                if is_of_efface(each.name):
                    bound.add(each.asname or "efface")
                    paths.append((node.lineno, each.name))
        elif isinstance(node, ast.ImportFrom) and is_of_efface(node.module):
            bound |= {each.asname or each.name for each in node.names}
            paths += [(node.lineno, f"{node.module}.{each.name}") for each in node.names]
    return bound, paths


def strings(call, bound):
    """Names that a call such as monkeypatch.setattr gives as strings: of a module of efface, or as a dotted path."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
    if name not in BY_NAME:
        return
    of_efface = bool(call.args) and root(call.args[0]) in bound
    for each in call.args[:2]:
        name = each.value if isinstance(each, ast.Constant) and isinstance(each.value, str) else ""
        if is_of_efface(name) or (of_efface and re.fullmatch(r"\w+", name)):
            yield name


def private_names(text):
    """Each use of a private name of efface, with its line."""
    tree = ast.parse(text)
    bound, paths = imports(tree)
    found = [(line, path) for line, path in paths if has_private_part(path)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and root(node) in bound:
            found.append((node.lineno, ast.unparse(node)))
        elif isinstance(node, ast.Call):
            found += [(node.lineno, name) for name in strings(node, bound) if has_private_part(name)]
    return sorted(found)


def test_no_test_uses_a_private_name_of_efface():
    files = sorted(TESTS.rglob("*.py"))
    assert len(files) > 80
    found = [
        f"{file.relative_to(TESTS)}:{line}: {name}" for file in files for line, name in private_names(file.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "from efface.methods.cam import _enlarged",
        "import efface.methods._cam",
        "from efface import methods\nmethods.cam._enlarged(small)",
        "import efface.data.folder as folder\nfolder._image('a.png')",
        "def test():\n    from efface.plug import source\n    source._code.cache_clear()",
        "from efface.data import folder\nmonkeypatch.setattr(folder, '_image', None)",
        "from efface.data import folder\ngetattr(folder, '_image')",
        "monkeypatch.setattr('efface.methods.pattern.fit._NUMBERS', 200)",
    ],
)
def test_a_private_name_is_found(text):
    assert len(private_names(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "from efface.methods.cam import grad_cam\ngrad_cam.__wrapped__",
        "import efface\nefface.__version__",
        "model._forward_hooks",
        "monkeypatch.setattr(captum, '_add_noise_to_input', None)",
        "monkeypatch.setattr('efface.methods.pattern.fit.NUMBERS_AT_ONCE', 200)",
    ],
)
def test_a_public_name_is_left_alone(text):
    assert private_names(text) == []
