"""Call: a dotted path and its kwargs, the only way to plug anything in.

The path is imported and the kwargs are bound to the signature when the study is read, so a wrong name is an error
before the first computation, and an error inside an imported module is shown as that error.
"""

import ast
import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import json
import pkgutil
import sys
import sysconfig
import traceback
import typing
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator


class Call(BaseModel):
    """`{call: dotted.path, kwargs: {...}}`; a bare string is a call without kwargs."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    call: str
    kwargs: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return {"call": value} if isinstance(value, str) else value

    def __hash__(self) -> int:
        return hash(self.text)

    @property
    def text(self) -> str:
        """The call in one canonical line."""
        return json.dumps(self.model_dump(), sort_keys=True, default=str)

    def resolve(self) -> Any:
        """The object that the path names; ValueError says which part of it is missing or fails."""
        return resolve(self.call)

    def check(self, positional: Sequence[str], offered: Sequence[str] = ()) -> None:
        """Bind to the signature as it will be called: positional arguments, the kwargs, and `offered` if wanted."""
        target = self.resolve()
        if not callable(target):
            raise ValueError(f"'{self.call}' is a {type(target).__name__}, expected something to call")
        try:
            signature = inspect.signature(target)
        except (ValueError, TypeError):  # some builtins have none: nothing to check against
            return
        problems = _unknown(self.call, signature, len(positional), self.kwargs)
        problems += _missing(self.call, signature, positional, self.kwargs, offered) + _wrong_types(target, self.kwargs)
        if problems:
            raise ValueError("; ".join(problems))

    def wants(self, name: str) -> bool:
        """Whether the signature has a parameter of this name that the kwargs leave open."""
        try:
            parameters = inspect.signature(self.resolve()).parameters
        except (ValueError, TypeError):
            return False
        return name in parameters and name not in self.kwargs

    def __call__(self, *args: Any, **offered: Any) -> Any:
        """Call it; of the `offered` keywords it gets those that its signature names and its kwargs leave open."""
        taken = {name: value for name, value in offered.items() if self.wants(name)}
        return self.resolve()(*args, **taken, **self.kwargs)

    def identity(self) -> dict[str, Any]:
        """What a number made with this call depends on: path, kwargs and the source behind the path."""
        return self.model_dump() | {"source": [source_digest(name) for name in _modules_of(self.call)]}


def bound(*positional: str, offered: tuple[str, ...] = ()) -> AfterValidator:
    """For annotating a field: check its call against the way it will be made."""

    def check(call: Call) -> Call:
        call.check(positional, offered)
        return call

    return AfterValidator(check)


@functools.cache
def resolve(path: str) -> Any:
    """Import a dotted path: modules first, then attributes. ValueError tells the three ways to fail apart."""
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ValueError(f"'{path}' is no dotted path; expected module.function, e.g. efface.methods.gradient.gradient")
    found: Any = None
    depth = 0
    for depth in range(1, len(parts)):
        name = ".".join(parts[:depth])
        if not _exists(name):
            depth -= 1
            break
        found = _import(name)
    if found is None:
        raise ValueError(f"'{path}': there is no module '{parts[0]}' here; is it installed, or in the current folder?")
    for at in range(depth, len(parts)):
        if not hasattr(found, parts[at]):
            raise ValueError(f"'{'.'.join(parts[:at])}' has no '{parts[at]}'; {_near(parts[at], _public(found))}")
        found = getattr(found, parts[at])
    return found


@functools.cache
def source_digest(name: str) -> str:
    """SHA-256 of a module's code, 16 digits; comments and docstrings do not count.

    With it goes the code that it imports from its own package or from files beside the study; of an installed
    package (but efface) its version stands for that.
    """
    queue, code = [name], {}
    while queue:
        each = queue.pop()
        if each in code or each == "efface" or (read := _code(each)) is None:  # the bare package holds its version
            continue
        code[each], imports = read
        queue += [other for other in imports if _is_own(other, name)]
    top = sys.modules.get(name.split(".", maxsplit=1)[0])
    whole = hashlib.sha256(str(getattr(top, "__version__", "")).encode() if top and _is_installed(top) else b"")
    for each in sorted(code):
        whole.update(code[each].encode())
    return whole.hexdigest()[:16]


def code_digest(*names: str) -> str:
    """SHA-256 of the code of these modules alone, 16 digits; comments and docstrings do not count."""
    code = [read[0] for name in names if (read := _code(name)) is not None]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()[:16]


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


@functools.cache
def _modules_of(path: str) -> tuple[str, ...]:
    """The modules behind a path: the one that the path names, and the one that the object's own code is in."""
    found, parts = resolve(path), path.split(".")
    named = next(name for end in range(len(parts) - 1, 0, -1) if (name := ".".join(parts[:end])) in sys.modules)
    return tuple(dict.fromkeys([named, str(getattr(found, "__module__", None) or type(found).__module__)]))


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever it raises is the user's own error, to be shown
        last = traceback.extract_tb(error.__traceback__)[-1]
        where, what = f"{last.filename}:{last.lineno}", str(error)
        if isinstance(error, SyntaxError):  # the trace ends in the importer
            where, what = f"{error.filename}:{error.lineno}", error.msg
        raise ValueError(f"importing '{name}' fails: {type(error).__name__}: {what} ({where})") from error


def _unknown(call: str, signature: inspect.Signature, positional: int, kwargs: dict[str, Any]) -> list[str]:
    parameters = list(signature.parameters.values())[positional:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return []
    known = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [f"{call} has no setting '{name}'; {_near(name, known)}" for name in kwargs if name not in known]


def _missing(
    call: str, signature: inspect.Signature, positional: Sequence[str], kwargs: dict[str, Any], offered: Sequence[str]
) -> list[str]:
    given = dict.fromkeys([*kwargs, *(name for name in offered if name in signature.parameters)])
    try:
        signature.bind(*positional, **given)
    except TypeError as error:
        parameters = signature.parameters.values()
        if any(p.kind is p.VAR_KEYWORD for p in parameters) or set(given) <= set(signature.parameters):
            asked = f"({', '.join(positional)})" if positional else "no positional arguments"
            return [f"{call} cannot be called with {asked} and {', '.join(given) or 'no settings'}: {error}"]
    return []


def _wrong_types(target: Any, kwargs: dict[str, Any]) -> list[str]:
    """Plainly annotated settings (numbers, words, flags, lists of them) are checked; others are the callee's."""
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # noqa: BLE001  annotations may name anything, and need not resolve
        return []
    problems = []
    for name, value in kwargs.items():
        if not _is_plain(hints.get(name)):
            continue
        if isinstance(value, str) and _is_number(hints[name]):
            problems.append(f"{name} is '{value}', expected a number")
            continue
        try:
            TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            problems.append(f"{name} is {value!r}: {error.errors()[0]['msg'].lower()}")
    return problems


def _is_plain(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return True
    parts = [part for part in typing.get_args(hint) if part is not Ellipsis]
    return all(map(_is_plain, parts)) if parts else hint in (int, float, str, bool, type(None), list, tuple, dict)


def _is_number(hint: Any) -> bool:
    return bool({int, float} & {hint, *typing.get_args(hint)}) and str not in {hint, *typing.get_args(hint)}


def _near(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(sorted(known)[:20]) + (", ..." if len(known) > 20 else "") if known else "nothing"
    return (f"did you mean '{close[0]}'? " if close else "") + f"it has {listed}"


def _public(found: Any) -> list[str]:
    names = [name for name in dir(found) if not name.startswith("_")]
    own = [n for n in names if getattr(getattr(found, n), "__module__", None) == getattr(found, "__name__", "")]
    own += [each.name for each in pkgutil.iter_modules(getattr(found, "__path__", ()))]
    return own or names


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
    """A module of the same package, of efface, or one that is not installed but lies beside the user's study."""
    top = other.split(".", maxsplit=1)[0]
    if top == name.split(".", maxsplit=1)[0]:
        return True
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
