"""Digests of Python source: a number depends on its settings and on the code that made it."""

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any


@functools.cache
def source_digest(name: str) -> str:
    """SHA-256 of a module's code, 16 digits; comments and docstrings do not count.

    The digest also covers what the module imports from its own package or from files beside the study, and the
    packages that contain these files. Compiled modules count by their bytes. An installed package counts by its
    version. efface has declared versions, so its code counts only for a module of efface itself.
    """
    code, _ = _closure(name)
    top = sys.modules.get(name.split(".", maxsplit=1)[0])
    whole = hashlib.sha256(package_version(top).encode() if top and is_installed(top) else b"")
    for module in sorted(code):
        whole.update(code[module].encode())
    return whole.hexdigest()[:16]


def imports_efface(name: str) -> bool:
    """Return whether a module, or other code in its digest, imports anything of efface."""
    return any(imported.split(".", maxsplit=1)[0] == "efface" for imported in _closure(name)[1])


@functools.cache
def _closure(name: str) -> tuple[dict[str, str], frozenset[str]]:
    """The code of a module and of all that counts with it, by module; and everything that these import."""
    top = _module(name.split(".", maxsplit=1)[0])
    queue = [name] if top is None or is_installed(top) else _with_packages([name])
    code, imported = dict[str, str](), set[str]()
    while queue:
        part = queue.pop()
        if part in code or part == "efface" or (read := _code(part)) is None:  # the bare package holds its version
            continue
        code[part], imports = read
        imported |= set(imports)
        queue += [other for other in imports if _is_own(other, name)]
    return code, frozenset(imported)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 16 digits; read again only when it has changed."""
    state = path.stat()
    return _file_digest(path, state.st_mtime_ns, state.st_size)


def files_named(settings: Mapping[str, Any]) -> dict[str, str]:
    """The digests of the files that settings name, by setting; those in lists and mappings as `name.0`, `name.key`."""
    return {name: file_digest(Path(value)) for name, value in _leaves(settings) if _is_file(value)}


def _leaves(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the single values of settings by name; those in lists and mappings as `name.0` and `name.key`."""
    for name, value in settings.items():
        if isinstance(value, list | tuple):
            yield from _leaves({f"{name}.{at}": item for at, item in enumerate(value)})
        elif isinstance(value, Mapping):
            yield from _leaves({f"{name}.{at}": item for at, item in value.items()})
        else:
            yield name, value


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) < _LONGEST_PATH and os.path.isfile(value)  # noqa: PTH113  asked often


_LONGEST_PATH = 4096


@functools.cache
def _file_digest(path: Path, _written: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


READ: dict[Path, tuple[int, int]] = {}
"""Files whose code counts, with time and size when this process read them."""


def refuse_changed_code() -> None:
    """Raise ValueError if a file of code that counts has changed since this process read it.

    The keys of this command name the code as it was, and a part that is imported later runs as it is now.
    """
    for path, before in READ.items():
        try:
            state = path.stat()
            now = (state.st_mtime_ns, state.st_size)
        except OSError:
            now = None
        if now != before:
            raise ValueError(
                f"{path}: has changed while this command ran, so a result may not be that of the code that its key "
                "names; run the same command again (what was finished before is kept)"
            )


def package_version(top: ModuleType) -> str:
    """The version of an installed package: its own word, else that of the distribution that it came with."""
    if (own := getattr(top, "__version__", None)) is not None:
        return str(own)
    names = importlib.metadata.packages_distributions().get(top.__name__, [])
    return " ".join(f"{distribution} {importlib.metadata.version(distribution)}" for distribution in sorted(set(names)))


@functools.cache
def _code(name: str) -> tuple[str, tuple[str, ...]] | None:
    """A module's code, and what it imports unless it is installed; None where there is none of the user's.

    Of a compiled module, and of one that is no Python source, the bytes count.
    """
    module = _module(name)
    path = getattr(module, "__file__", None)
    if module is None or not path or not Path(path).is_file():
        return None
    installed = is_installed(module)
    if installed and not path.endswith(".py"):
        return None
    if not installed and name.split(".", maxsplit=1)[0] != "efface":
        state = Path(path).stat()
        READ.setdefault(Path(path), (state.st_mtime_ns, state.st_size))
    tree = None
    if path.endswith(".py"):
        with contextlib.suppress(SyntaxError, ValueError):
            tree = ast.parse(Path(path).read_bytes())
    if tree is None:
        return file_digest(Path(path)), ()
    imports = () if installed else tuple(_with_packages(_imports(tree, module)))
    return ast.unparse(_without_docstrings(tree)), imports


def _with_packages(names: list[str]) -> list[str]:
    """The names, and before each of them those of the packages around it: their code runs as well."""
    modules = dict[str, None]()
    for name in names:
        parts = name.split(".")
        ends = range(1, len(parts) + 1) if parts[0] != "efface" else (len(parts),)
        modules |= {".".join(parts[:end]): None for end in ends if parts[0]}
    return list(modules)


def _module(name: str) -> ModuleType | None:
    """A module, or what is known of it unimported: an import inside a function counts before it is made."""
    if name in sys.modules:
        return sys.modules[name]
    try:
        spec = importlib.util.find_spec(name)
    except Exception:  # noqa: BLE001  it runs the packages around the module, which may raise anything
        return None
    if spec is None:
        return None
    module = ModuleType(name)
    module.__file__, module.__package__ = spec.origin, spec.parent
    if spec.submodule_search_locations is not None:
        module.__path__ = list(spec.submodule_search_locations)
    return module


def _imports(tree: ast.AST, module: ModuleType) -> list[str]:
    imported = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = (module.__package__ or "").split(".")
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            imported += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return imported


def _is_own(other: str, name: str) -> bool:
    """A module of the same package, or one that is not installed but lies beside the user's study."""
    top = other.split(".", maxsplit=1)[0]
    if top == name.split(".", maxsplit=1)[0]:
        return True
    if top == "efface":
        return False
    module = _module(top)
    return module is not None and bool(_place(module)) and not is_installed(module)


def is_installed(module: ModuleType) -> bool:
    """Return whether a module came with Python or with pip. efface itself never counts as installed."""
    if module.__name__.split(".")[0] == "efface":
        return False
    return _place(module).startswith(installed_folders())


def _place(module: ModuleType) -> str:
    """The file of a module; of a package without `__init__.py` its folder; "" for one that is built in."""
    return str(getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), ""))


@functools.cache
def installed_folders() -> tuple[str, ...]:
    """Return the folders of packages that came with Python or with pip.

    They are those of this environment, and those that it borrows: of the system, of the user (`pip install --user`),
    or of another environment.
    """
    own = [sysconfig.get_paths()[key] for key in ("purelib", "platlib", "stdlib", "platstdlib")]
    borrowed = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    return tuple(dict.fromkeys([*own, *borrowed]))


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
