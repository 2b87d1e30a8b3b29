"""Short words of plug-ins: `grad_cam` stands for `efface.methods.cam.grad_cam` where a method is expected.

The folder of a kind is the list of its words. Its files are read as text, so a word imports only the module that it
names. A function is a plug-in of a kind if it has the signature of that kind. If a plug-in is called `load` or
`attribute`, its word is the name of its module or package: `torchvision`, `captum`.
"""

import ast
import difflib
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from efface.plug import moved

_ROOT = Path(__file__).parent.parent
_NAMED_BY_MODULE = ("load", "attribute")
_FEW, _LISTED = 5, 40  # up to 5 words are always listed; at most 40 are listed if no word is near
_DEFINITION = re.compile(
    r"^def (?P<name>[a-z]\w*)(?P<rest>\(.*?\)(?:\s*->\s*[^\n]+?)?:)[ \t]*(?:#[^\n]*)?\n[ \t]"
    r"|^class (?P<kind>[A-Z]\w*)(?P<body>.*?)(?=^\S|\Z)",
    re.DOTALL | re.MULTILINE,
)
_CALLED = re.compile(r"^    def __call__(?P<rest>\(.*?\)(?:\s*->\s*[^\n]+?)?:)[ \t]*\n", re.DOTALL | re.MULTILINE)


class _Signature(NamedTuple):
    """The parts of a signature, as text.

    positional: names of the positional arguments.
    needed: annotations of the positional arguments and of the keywords without a default.
    gives: annotation of the result.
    """

    positional: tuple[str, ...]
    needed: tuple[str, ...]
    gives: str


class _Kind(NamedTuple):
    place: str
    fits: Callable[[_Signature], bool]


def _takes(*positional: str, gives: str = "") -> Callable[[_Signature], bool]:
    """Return the test for plug-ins that are called with these arguments.

    gives: pattern for the beginning of the result's annotation.
    """
    return lambda signature: signature.positional == positional and re.match(gives, signature.gives) is not None


def _returns(gives: str) -> Callable[[_Signature], bool]:
    """Return the test for plug-ins that are called with settings alone.

    A function with a required setting that may be None is a helper and no plug-in.
    """

    def fits(signature: _Signature) -> bool:
        plain = not any("None" in annotation for annotation in signature.needed)
        return signature.positional in ((), ("name",)) and plain and signature.gives == gives

    return fits


POSITIONAL = {
    "data": (),
    "model": (),
    "method": ("model", "images", "targets"),
    "imputer": ("images", "removed"),
    "post": ("maps",),
    "unit": ("images",),
    "executor": ("work", "tasks"),
    "attack": ("network", "images", "targets"),
    "augmentation": ("images", "seeds"),
    "regularizer": ("network", "images", "targets", "outputs"),
    "preset": ("recipe",),
    "metric": (),
}
"""The positional arguments that efface passes to a plug-in of each kind."""
_MAPS = r"Maps?$|Images$|Any$|Seeds$|Float\[|dict\[str, Images\]$"
_KINDS = {
    "data": _Kind("data", _returns("dict[str, Split]")),
    "model": _Kind("models", _returns("nn.Module")),
    "method": _Kind("methods", _takes(*POSITIONAL["method"], gives=_MAPS)),
    "imputer": _Kind("impute", _takes(*POSITIONAL["imputer"], gives="Images")),
    "post": _Kind("erase/post.py", _takes(*POSITIONAL["post"])),
    "unit": _Kind("erase/units.py", _takes(*POSITIONAL["unit"], gives="Labels")),
    "executor": _Kind("execute", _takes(*POSITIONAL["executor"])),
    "attack": _Kind("training/attack.py", _takes(*POSITIONAL["attack"], gives="Images")),
    "augmentation": _Kind("training/augment.py", _takes(*POSITIONAL["augmentation"], gives="Images")),
    "regularizer": _Kind("training/regularize.py", _takes(*POSITIONAL["regularizer"], gives="Term")),
    "preset": _Kind("training/presets.py", _takes(*POSITIONAL["preset"], gives="Recipe")),
    "metric": _Kind("metrics", lambda _: False),
}
KINDS = tuple(_KINDS)
"""The kinds of plug-ins, by the names that messages use."""


def expand(kind: str, word: str, beside: tuple[str, ...] = ()) -> str:
    """Return the dotted path of a word of this kind.

    A dotted path is returned unchanged. The path of an object that has moved is replaced by its present path.

    beside: words that name no plug-in; they are returned unchanged.

    ValueError: the kind has no such word. The message names the nearest ones.
    """
    if "." in word:
        return moved.current(word)
    if word in beside:
        return word
    if (path := index(kind).get(word)) is None:
        known = [*beside, *index(kind)]
        near = difflib.get_close_matches(word, known, n=3) if len(known) > _FEW else []
        listed = ", ".join(known[:_LISTED]) + (", ..." if len(known) > _LISTED else "")
        hint = f"did you mean {' or '.join(map(repr, near))}" if near else f"there are {listed}"
        if unfit := _unfit(kind, word):
            raise ValueError(
                f"'{word}' is no {kind}, although {unfit} defines it: a short word needs the signature of the kind "
                "with its annotations, and an entry in '__all__' where its package has one; see docs/extending.md"
            )
        raise ValueError(f"'{word}' is no {kind}; {hint}, or the dotted path of your own function{'?' * bool(near)}")
    return path


def _unfit(kind: str, word: str) -> str:
    """Return the file in the folder of a kind that defines a function of this name; "" if there is none."""
    place = _ROOT / _KINDS[kind].place
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    defining = [file for file in files if re.search(rf"^def {re.escape(word)}\(", file.read_text(), re.MULTILINE)]
    return defining[0].relative_to(_ROOT.parent).as_posix() if defining else ""


def word_of(path: str) -> str:
    """Return the word of one of efface's own plug-ins; "" for any other path."""
    return _words().get(path, "")


@functools.cache
def name_of(path: str) -> str:
    """Kind and word of one of efface's own plug-ins, such as `method.grad_cam`; "" for any other path."""
    for kind, (place, _) in _KINDS.items():
        if path.startswith(f"{_dotted(_ROOT / place)}.") and (word := _named(kind).get(path)):
            return f"{kind}.{word}"
    return ""


@functools.cache
def _named(kind: str) -> dict[str, str]:
    return {path: word for word, path in entries(kind)}


@functools.cache
def index(kind: str) -> dict[str, str]:
    """Return the dotted path of each word of a kind, in alphabetical order."""
    return dict(sorted(entries(kind)))


def entries(kind: str) -> Iterator[tuple[str, str]]:
    """Yield the word and the dotted path of each plug-in of a kind."""
    if kind == "metric":  # each metric has its own file; efface.metrics.metric finds them in the same way
        for file in sorted((_ROOT / "metrics").glob("[a-z]*.py")):
            if f"\ndef {file.stem}(" in (text := file.read_text()) or f"\n{file.stem} = " in text:
                yield file.stem, f"efface.metrics.{file.stem}.{file.stem}"
        return
    place = _KINDS[kind].place
    for module, name in _public(_ROOT / place):
        if (signature := _signatures(module[1]).get(module[2])) and _KINDS[kind].fits(signature):
            stem = module[0].rpartition(".")[2]
            yield (stem if name in _NAMED_BY_MODULE else name), f"{module[0]}.{name}"


@functools.cache
def places(path: str) -> tuple[Path, str] | None:
    """Return the file that defines one of efface's own plug-ins, and its name there; None for any other path."""
    kind, _, word = name_of(path).partition(".")
    if not kind:
        return None
    if kind == "metric":
        return _ROOT / "metrics" / f"{word}.py", word
    found = (module for module, name in _public(_ROOT / _KINDS[kind].place) if f"{module[0]}.{name}" == path)
    _, file, name = next(found)
    return file, name


@functools.cache
def _words() -> dict[str, str]:
    return {path: word for kind in KINDS for word, path in entries(kind)}


def _public(place: Path) -> Iterator[tuple[tuple[str, Path, str], str]]:
    """Yield the public names of a file, of each file of a folder, or of the `__all__` of a package that has one.

    Each item is ((public module, file that defines the object, its name there), public name).
    """
    if place.is_file():
        yield from (((_dotted(place), place, name), name) for name in _signatures(place))
        return
    listed = _listed(place / "__init__.py")
    if listed:
        yield from (((_dotted(place), *source), name) for name, source in listed.items())
        return
    for path in sorted(place.iterdir()):
        is_module = path.suffix == ".py" and path.name != "__init__.py"
        if is_module or (path / "__init__.py").is_file():
            yield from _public(path)


def _listed(init: Path) -> dict[str, tuple[Path, str]]:
    """Return the names in `__all__` of a package, each with the file that defines it and its name there."""
    sources: dict[str, tuple[Path, str]] = {}
    names: list[str] = []
    for node in ast.parse(init.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("efface."):
            file = _ROOT.parent / Path(*str(node.module).split(".")).with_suffix(".py")
            sources |= {alias.asname or alias.name: (file, alias.name) for alias in node.names}
        elif isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Name):
            if target.id == "__all__":
                names = list(ast.literal_eval(node.value))
            elif isinstance(node.value, ast.Name) and node.value.id in sources:
                sources[target.id] = sources[node.value.id]
    return {name: sources[name] for name in names if name in sources}


@functools.cache
def _signatures(file: Path) -> dict[str, _Signature]:
    """Return the signatures at the top level of a file: those of functions and of the `__call__` of classes."""
    if not file.is_file():
        return {}
    signatures: dict[str, _Signature] = {}
    for match in _DEFINITION.finditer(file.read_text()):
        name, rest = match["name"], match["rest"]
        if match["kind"]:
            called = _CALLED.search(match["body"])
            name, rest = match["kind"], called["rest"] if called else None
            if match["body"].startswith("(Protocol"):  # a protocol describes plug-ins and is none itself
                continue
            if rest and "**" in rest:  # a class that wraps a function of any signature
                continue
            base = re.match(r"\((\w+)\):", match["body"])
            if not called and base and base[1] in signatures:  # it has the `__call__` of a class above it
                signatures[name] = signatures[base[1]]
        if rest and (signature := _parsed(rest)):
            signatures[name] = signature
    return signatures


def _parsed(text: str) -> _Signature | None:
    try:
        (node,) = ast.parse(f"def f{text} ...").body
    except SyntaxError:
        return None
    assert isinstance(node, ast.FunctionDef)
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    if positional and positional[0].arg == "self":
        positional = positional[1:]
    needed = [
        *positional,
        *(argument for argument, value in zip(given.kwonlyargs, given.kw_defaults, strict=True) if not value),
    ]
    return _Signature(
        tuple(argument.arg for argument in positional),
        tuple(ast.unparse(argument.annotation) if argument.annotation else "" for argument in needed),
        ast.unparse(node.returns) if node.returns else "",
    )


def _dotted(place: Path) -> str:
    return ".".join(("efface", *place.relative_to(_ROOT).with_suffix("").parts))
