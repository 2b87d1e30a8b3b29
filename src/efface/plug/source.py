"""Digests of Python source: what a number depends on, besides its settings, is the code that made it."""

import ast
import functools
import hashlib
import importlib.util
import sys
import sysconfig
from pathlib import Path
from types import ModuleType


@functools.cache
def source_digest(name: str) -> str:
    """SHA-256 of a module's code, 16 digits; comments and docstrings do not count.

    With it goes the code that it imports from its own package or from files beside the study; of an installed package
    its version stands for that. efface has declared versions: its code counts only for a module of efface itself.
    """
    code, _ = _closure(name)
    top = sys.modules.get(name.split(".", maxsplit=1)[0])
    whole = hashlib.sha256(str(getattr(top, "__version__", "")).encode() if top and _is_installed(top) else b"")
    for each in sorted(code):
        whole.update(code[each].encode())
    return whole.hexdigest()[:16]


def imports_efface(name: str) -> bool:
    """Whether a module, or what counts as its code, imports anything of efface."""
    return any(each.split(".", maxsplit=1)[0] == "efface" for each in _closure(name)[1])


@functools.cache
def _closure(name: str) -> tuple[dict[str, str], frozenset[str]]:
    """The code of a module and of all that counts with it, by module; and everything that these import."""
    queue, code, imported = [name], dict[str, str](), set[str]()
    while queue:
        each = queue.pop()
        if each in code or each == "efface" or (read := _code(each)) is None:  # the bare package holds its version
            continue
        code[each], imports = read
        imported |= set(imports)
        queue += [other for other in imports if _is_own(other, name)]
    return code, frozenset(imported)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 16 digits; read again only when it has changed."""
    found = path.stat()
    return _file_digest(path, found.st_mtime_ns, found.st_size)


@functools.cache
def _file_digest(path: Path, _written: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@functools.cache
def _code(name: str) -> tuple[str, tuple[str, ...]] | None:
    """A module's code, and what it imports unless it is installed; None where there is no Python source."""
    module = _module(name)
    path = getattr(module, "__file__", None)
    if module is None or not path or not path.endswith(".py"):
        return None
    tree = ast.parse(Path(path).read_text())
    imports = () if _is_installed(module) else tuple(dict.fromkeys(_imports(tree, module)))
    return ast.unparse(_without_docstrings(tree)), imports


def _module(name: str) -> ModuleType | None:
    """A module, or what is known of it unimported: an import inside a function counts before it is made."""
    if name in sys.modules:
        return sys.modules[name]
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    module = ModuleType(name)
    module.__file__, module.__package__ = spec.origin, spec.parent
    return module


def _imports(tree: ast.AST, module: ModuleType) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = (module.__package__ or "").split(".")
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return found


def _is_own(other: str, name: str) -> bool:
    """A module of the same package, or one that is not installed but lies beside the user's study."""
    top = other.split(".", maxsplit=1)[0]
    if top == name.split(".", maxsplit=1)[0]:
        return True
    if top == "efface":
        return False
    module = _module(top)
    return module is not None and bool(getattr(module, "__file__", None)) and not _is_installed(module)


def _is_installed(module: ModuleType) -> bool:
    """Whether it came with Python or with pip; efface counts as our own wherever it lies."""
    if module.__name__.split(".")[0] == "efface":
        return False
    return str(getattr(module, "__file__", None)).startswith(_installed_folders())


@functools.cache
def _installed_folders() -> tuple[str, ...]:
    return tuple(sysconfig.get_paths()[key] for key in ("purelib", "platlib", "stdlib", "platstdlib"))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ) and isinstance(body[0].value.value, str):
            body[:] = body[1:] or [ast.Pass()]
    return tree
