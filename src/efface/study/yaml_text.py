"""YAML text to plain values, in bounded time and memory; what YAML would read otherwise than it looks is refused.

Values are those of YAML 1.2: only `true` and `false` are truth values, `1:30` and `2026-11-29` are texts, and `1e-3` is
a number.
"""

import math
import re
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import yaml

LARGEST, DEEPEST, MOST_DIGITS, MOST_VALUES = 250_000, 40, 18, 200_000
"""Bytes of a file, levels of nesting, digits of an integer, and values once every alias is written out."""

_MARKS = {"UTF-32": (b"\xff\xfe\0\0", b"\0\0\xfe\xff"), "UTF-16": (b"\xff\xfe", b"\xfe\xff")}
"""First bytes of files in other encodings. Those of UTF-32 begin with those of UTF-16."""

_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")


class YamlTextError(ValueError):
    """A text is not YAML that can be read safely. `line` is its line, from 1; None if it has none."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


Tags = Mapping[str, Callable[[Any, Any], Any]]
"""Tags by their full names, with functions of the loader and the node that give a plain value."""


def read_yaml(content: bytes | str, tags: Tags | None = None) -> Any:
    """Return the plain values of a YAML text: dicts, lists, texts, numbers, truth values and None.

    tags: that are read, besides those of plain values; None: no others.

    YamlTextError: it is no UTF-8, too large, too deep, not YAML, or it has duplicate keys, tags of other kinds, or
        numbers that YAML 1.1 and 1.2 read differently.
    """
    text = _decoded(content) if isinstance(content, bytes) else content
    if len(text) > LARGEST:
        raise YamlTextError(f"the text has {len(text):,} characters; expected at most {LARGEST:,}")
    loader = None
    try:
        loader = _Loader(text)
        loader.tags = tags or {}
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node)
        return loader.construct_document(node)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlTextError(f"the character {error.character:#x} is not allowed in YAML; delete it", line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlTextError(
            f"not YAML that can be read safely: {error.problem or error.context}", mark.line + 1 if mark else None
        ) from None
    except RecursionError:
        raise YamlTextError(f"the text is nested too deeply; expected at most {DEEPEST} levels") from None
    finally:
        if loader is not None:
            loader.dispose()


def _decoded(content: bytes) -> str:
    for name, marks in _MARKS.items():
        if content.startswith(marks):
            raise YamlTextError(f"the file is in {name}; save it as UTF-8")
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise YamlTextError("the file has bytes of zero, as UTF-16 and UTF-32 have; save it as UTF-8", line)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise YamlTextError(f"the byte {content[error.start]:#x} is not UTF-8; save the file as UTF-8", line) from None


class _Loader(yaml.SafeLoader):
    """A safe loader with the values of YAML 1.2 that refuses what is ambiguous."""

    depth = 0
    tags: Tags = {}  # noqa: RUF012  set for each text, never changed

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise YamlTextError(f"nested more than {DEEPEST} levels deep", self.peek_event().start_mark.line + 1)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  PyYAML's signature
        _check_keys(node)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: Any) -> int:
        text, line = str(node.value), node.start_mark.line + 1
        _refuse_underscores(text, line)
        digits = text.lstrip("+-")
        if len(digits) > MOST_DIGITS:
            raise YamlTextError(f"a number has {len(digits):,} digits; expected at most {MOST_DIGITS}", line)
        if digits != "0" and digits.startswith("0"):
            raise YamlTextError(
                f"the number {text} begins with 0, so readers of YAML differ about its base; write it without the 0, "
                "or in quotes if it is a text",
                line,
            )
        return int(text)

    def construct_yaml_float(self, node: Any) -> float:
        _refuse_underscores(str(node.value), node.start_mark.line + 1)
        value = float(super().construct_yaml_float(node))
        if math.isinf(value) and "inf" not in str(node.value).lower():
            raise YamlTextError(f"the number {str(node.value)[:40]} is too large", node.start_mark.line + 1)
        return value

    def construct_undefined(self, node: Any) -> Any:
        if node.tag in self.tags:
            return self.tags[node.tag](self, node)
        raise YamlTextError(
            f"not YAML that can be read safely: the tag {node.tag}; a study has plain values only",
            node.start_mark.line + 1,
        )


def _refuse_underscores(text: str, line: int) -> None:
    if "_" in text:
        raise YamlTextError(
            f"{text[:40]} has underscores, so readers of YAML differ about it: a number or a text; write the number "
            "without them, or put the text in quotes",
            line,
        )


_RESOLVED = {
    "bool": r"^(?:true|True|TRUE|false|False|FALSE)$",
    "int": r"^[-+]?[0-9][0-9_]*$|^0[box][0-9a-fA-F_]+$",
    "float": r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$"
    r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$",
    "null": r"^(?:~|null|Null|NULL|)$",
    "merge": r"^<<$",
}
_Loader.yaml_implicit_resolvers = {}
for _kind, _pattern in _RESOLVED.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), None)
_Loader.yaml_constructors = {
    f"tag:yaml.org,2002:{kind}": getattr(_Loader, f"construct_yaml_{kind}") for kind in _PLAIN
} | {None: _Loader.construct_undefined}


def _check_keys(node: yaml.MappingNode) -> None:
    """Refuse a key that stands twice in one mapping, and a key that is a list or a mapping."""
    lines: dict[Hashable, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise YamlTextError("a key is a list or a mapping; expected a text", line)
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.value in lines:
            first = lines[key.value]
            where = f"lines {first} and {line}" if first != line else f"line {line}"
            raise YamlTextError(f"{key.value}: the key stands twice, {where}; keep one", line)
        lines[key.value] = line


def _check_size(top: yaml.Node) -> None:
    """Refuse anchors that contain themselves, or that make more than `MOST_VALUES` values when written out."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = -1
            parts = node.value if isinstance(node, yaml.CollectionNode) else ()
            inner = [child for part in parts for child in (part if isinstance(part, tuple) else (part,))]
            sizes[id(node)] = 1 + sum(map(size, inner))
        line = node.start_mark.line + 1
        if sizes[id(node)] < 0:
            raise YamlTextError("an anchor contains itself", line)
        if sizes[id(node)] > MOST_VALUES:
            raise YamlTextError(f"anchors make more than {MOST_VALUES:,} values of this part", line)
        return sizes[id(node)]

    size(top)
