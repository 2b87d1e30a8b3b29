"""What counts as the code of a plug-in: packages around it, namespace packages, compiled files, odd encodings."""

import itertools
import os
import sys
import time

import pytest

import efface.plug.identity
import efface.plug.source
from efface.plug import call
from efface.plug.call import Call
from efface.plug.source import refuse_changed_code
from small.caches import forget
from small.messages import words

NUMBER = itertools.count()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A function `write(path, text)` and a function `digest(path)` of a call there, as a new process finds it."""
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)

    def write(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())

    def digest(path, **kwargs):
        for each in set(sys.modules) - known:
            sys.modules.pop(each)
        forget(call, efface.plug.source, efface.plug.identity)
        efface.plug.source.READ.clear()
        return Call(call=path, kwargs=kwargs).identity()

    return write, digest


@pytest.mark.parametrize(
    ("files", "changed"),
    [
        ({"{n}.py": "from {n}_lib.tools import X\n", "{n}_lib/tools.py": "X = 1\n"}, "{n}_lib/tools.py"),
        (
            {
                "{n}.py": "from {n}_one.a import X\n",
                "{n}_one/a.py": "from {n}_two.b import X\n",
                "{n}_two/b.py": "X = 1\n",
            },
            "{n}_two/b.py",
        ),
        (
            {"{n}.py": "import {n}_lib.tools\n", "{n}_lib/tools.py": "", "{n}_lib/__init__.py": "X = 1\n"},
            "{n}_lib/__init__.py",
        ),
        ({"{n}.py": "import {n}_fast\n", "{n}_fast.so": "X = 1\n"}, "{n}_fast.so"),
    ],
    ids=["namespace", "through a second one", "the package around", "compiled"],
)
def test_a_change_of_what_a_plug_in_imports_changes_its_identity(place, files, changed):
    write, digest = place
    name = f"source_{next(NUMBER)}"
    for path, text in files.items():
        write(path.format(n=name), text.format(n=name).replace(f"import {name}_fast\n", ""))
    lazily = f"    import {name}_fast\n" if "so" in changed else ""
    write(f"{name}.py", files["{n}.py"].format(n=name) * (not lazily) + f"\n\ndef f():\n{lazily}    return 1\n")
    before = digest(f"{name}.f")
    assert digest(f"{name}.f") == before
    write(changed.format(n=name), "X = 22\n")
    assert digest(f"{name}.f") != before


def test_the_package_that_holds_a_plug_in_counts(place):
    write, digest = place
    name = f"source_{next(NUMBER)}"
    write(f"{name}/__init__.py", "X = 1\n")
    write(f"{name}/maps.py", "def f():\n    return 1\n")
    before = digest(f"{name}.maps.f")
    write(f"{name}/__init__.py", "X = 22\n")
    assert digest(f"{name}.maps.f") != before


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfdef f():\n    return 1\n",
        b"# -*- coding: latin-1 -*-\ndef f():\n    return '\xe9'\n",
        b"try:\n    from {n}_broken.fast import f\nexcept Exception:\n    def f():\n        return 1\n",
    ],
    ids=["byte order mark", "latin-1", "an import that fails"],
)
def test_source_that_python_reads_is_read(place, text):
    write, digest = place
    name = f"source_{next(NUMBER)}"
    write(f"{name}_broken/__init__.py", "raise RuntimeError('no device')\n")
    write(f"{name}.py", text.replace(b"{n}", name.encode()))
    before = digest(f"{name}.f")
    write(f"{name}.py", text.replace(b"{n}", name.encode()) + b"\n\nY = 2\n")
    assert digest(f"{name}.f") != before


@pytest.mark.parametrize("borrowed", ["site-packages", "dist-packages"])
def test_a_package_of_another_environment_counts_by_its_version(borrowed, place, tmp_path, monkeypatch):
    write, digest = place
    package, beside = f"source_{next(NUMBER)}", f"source_{next(NUMBER)}"
    monkeypatch.syspath_prepend(tmp_path / borrowed)
    write(f"{beside}.py", f"from {package} import other\n\ndef f():\n    return other.x\n")
    found = []
    for number in (1, 22):
        write(f"{borrowed}/{package}/__init__.py", "")
        write(f"{borrowed}/{package}/other.py", f"x = {number}\n")
        found.append(digest(f"{beside}.f"))
        assert efface.plug.source.is_installed(sys.modules[f"{package}.other"])
    assert found[0] == found[1]


def test_an_installed_package_without_a_version_has_that_of_its_distribution(place, tmp_path, monkeypatch):
    write, digest = place
    name = f"source_{next(NUMBER)}"
    monkeypatch.setattr(efface.plug.source, "installed_folders", lambda: (str(tmp_path),))
    found = []
    for version in ("1.0", "2.0"):
        write(f"{name}/__init__.py", "")
        write(f"{name}/maps.py", f"from {name}._core import f\n")
        write(f"{name}/_core.py", "def f():\n    return 1\n")
        write(f"{name}-1.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        write(f"{name}-1.dist-info/top_level.txt", f"{name}\n")
        found.append(digest(f"{name}.maps.f"))
    assert found[0] != found[1]


def test_files_in_lists_and_mappings_count(place, tmp_path):
    write, digest = place
    name = f"source_{next(NUMBER)}"
    write(f"{name}.py", "def f(masks, more=None):\n    return 1\n")
    write("a.npy", "1")
    path = str(tmp_path / "a.npy")
    for settings in ({"masks": path}, {"masks": ["b", path]}, {"masks": 1, "more": {"x": [path]}}):
        write("a.npy", "1")
        before = digest(f"{name}.f", **settings)
        write("a.npy", "22")
        assert digest(f"{name}.f", **settings) != before


def test_code_that_changes_while_a_command_runs_is_told(place, tmp_path):
    write, digest = place
    name = f"source_{next(NUMBER)}"
    write(f"{name}.py", "def f():\n    return 1\n")
    digest(f"{name}.f")
    refuse_changed_code()
    later = time.time() + 5
    os.utime(tmp_path / f"{name}.py", (later, later))
    with pytest.raises(ValueError, match=rf"{name}\.py.*changed while this command ran"):
        refuse_changed_code()
    efface.plug.source.READ.clear()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("is_avraged = True", "'is_avraged' is_averaged?"),
        ("verison = 2", "'verison' version?"),
        ("version = '2'", "'version' '2'; whole number,"),
        ("version = True", "'version' True; whole number,"),
        ("is_control = 1", "'is_control' 1; True False"),
        ("is_random = 'yes'", "'is_random' 'yes'; True False"),
        ("is_flat = 'no'", "'is_flat' 'no'; True False"),
        ("cost = '2'", "'cost' '2'; number 0"),
        ("cost = -1.0", "'cost' -1.0; number 0"),
        ("doubts = ['why']", "'doubts' ['why']; function"),
    ],
)
def test_facts_that_are_misspelt_or_of_a_wrong_type_are_named(place, line, said):
    write, _ = place
    name = f"source_{next(NUMBER)}"
    text = "def f(images, removed):\n    return 1\n\nf.note = 'mine'\nf.conversion = 2\nf.version = 2\nf.cost = 1\n"
    write(f"{name}.py", f"{text}\ndef g(images, removed):\n    return 1\n\ng.{line}\n")
    Call(call=f"{name}.f").check(("images", "removed"))
    with pytest.raises(ValueError, match=words(f"{name}.g {said}")):
        Call(call=f"{name}.g").check(("images", "removed"))


def test_of_a_class_only_flags_and_the_version_are_facts(place):
    write, _ = place
    name = f"source_{next(NUMBER)}"
    own = "    cost = 'high'\n    costs = 3\n    versions = staticmethod(len)\n    version = 2\n"
    write(f"{name}.py", f"class C:\n{own}\n\nclass D:\n    verison = 2\n\n\nclass E:\n    is_control = 1\n")
    Call(call=f"{name}.C").check(())
    for each, said in (("D", "'verison' version?"), ("E", "'is_control' 1; True False")):
        with pytest.raises(ValueError, match=words(f"{name}.{each} {said}")):
            Call(call=f"{name}.{each}").check(())
