"""What a docstring says of a plug-in: its sentence, its source, what differs, and each setting.

The docstrings of efface's own plug-ins are read from their files, without an import, so a list of them comes at once.
"""

import ast
import functools
import re
from pathlib import Path

from efface.plug import words


def docstring(path: str) -> str:
    """Return the docstring of one of efface's own plug-ins; of a metric that is a value, that of its file."""
    places = words.places(path)
    if places is None:
        return ""
    file, name = places
    tree = _tree(str(file))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return ast.get_docstring(node) or ""
    return ast.get_docstring(tree) or ""


def around(file: str) -> list[str]:
    """Return the docstring of a file, then those of its functions and classes, then that of its package.

    A setting that several functions share is explained in one of them.
    """
    tree, package = _tree(file), Path(file).with_name("__init__.py")
    nodes: list[ast.AsyncFunctionDef | ast.FunctionDef | ast.ClassDef | ast.Module] = [tree]
    nodes += [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    nodes += [_tree(str(package))] if package.is_file() else []
    return [text for node in nodes if (text := ast.get_docstring(node))]


@functools.cache
def _tree(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text())


def first_line(text: str) -> str:
    """Return the first line of a docstring."""
    return text.partition("\n")[0]


def first_sentence(text: str) -> str:
    """Return the first sentence of the first line."""
    return re.split(r"(?<=\.) ", first_line(text))[0]


def said(text: str, word: str) -> str:
    """Return the text after a word such as `Source:`, up to the end of the paragraph or the next such word."""
    found = re.search(rf"^{word}: (.+(?:\n(?!\w+: ).+)*)", text, re.MULTILINE)
    return " ".join(found[1].split()).removesuffix(".") if found else ""


def meanings(text: str) -> dict[str, str]:
    """Return what a docstring says of each setting: the lines `name: text`, with those that are indented below them.

    A line may name several settings, `height, width: text`, also in backquotes.
    """
    found: dict[str, str] = {}
    for match in re.finditer(r"^(`?[a-z]\w*`?(?:, `?[a-z]\w*`?)*): (.+(?:\n[ \t]+\S.*)*)", text, re.MULTILINE):
        for name in match[1].split(", "):
            found.setdefault(name.strip("`"), " ".join(match[2].split()))
    return found
