"""Names of files: plain names stay, others are told apart."""

import re

import pytest

from efface.store.file_name import file_name

ODD = [
    "IG (50 steps)",
    "IG [50 steps]",
    "IG -50 steps-",
    "a/b",
    "a\\b",
    "..",
    "../x",
    "größe",
    "方法",
    "a=1, b=2",
    "$x$",
    "<b>",
    "x" * 80,
]


@pytest.mark.parametrize("name", ["mine", "grad_cam++", "ig-2.5", "mine~2", "A"])
def test_a_plain_name_is_its_own_file_name(name):
    assert file_name(name) == name


def test_other_names_are_safe_and_told_apart():
    names = [file_name(name) for name in [*ODD, "x" * 79 + "y"]]
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", name) and len(name) <= 80 for name in names)
    assert len(set(names)) == len(names)
    assert len({file_name(name) for name in ("IG (50)", "IG [50]", "IG -50-")}) == 3
