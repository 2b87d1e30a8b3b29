"""Ways in which somebody gets a study file wrong: each gives the bytes of a file, and what must be said about it."""

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

BASE: dict[str, Any] = {
    "out": "run",
    "data": {"call": "digits", "kwargs": {"limit": 40, "test_limit": 20, "seed": 0}},
    "model": {"call": "mlp", "kwargs": {"in_features": 64, "num_classes": 10}},
    "fit": {
        "epochs": 1,
        "batch_size": 32,
        "optimizer": {"call": "torch.optim.Adam", "kwargs": {"lr": 0.001, "weight_decay": 0.0}},
        "keep": "last",
    },
    "attribution_methods": [
        {"name": "random", "method": "random"},
        {"name": "gradient", "method": "gradient"},
        {"name": "smooth", "method": "smooth_grad", "kwargs": {"samples": 2, "noise": 0.1}, "draws": 1},
    ],
    "post": ["absolute", "channel_sum"],
    "imputer": {"call": "constant", "kwargs": {"value": 0.5}},
    "metrics": [{"name": "morf"}, {"name": "roar"}],
    "fractions": [0.3, 0.7],
    "repeats": 1,
    "executor": {"call": "processes", "kwargs": {"workers": 2}},
    "seed": 0,
    "max_batch": 16,
    "visualize": {"count": 2, "percentile": 99.0},
    "variants": {"one": {"seed": 1}, "two": {"fit": {"epochs": 2}}},
}

ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 0.5, -0.5, 1.5, 10**9, 10**30, 1e308, float("nan"), float("inf")),
    *("", " ", "yes", "1e-3", "-1", "10", "nan", "\x1b[31m", "é" * 50, "x" * 5000, "os.system", "a.b.c", "..", "null"),
    *(
        [],
        {},
        [[]],
        [None],
        [-1],
        ["x"] * 300,
        {"call": "random"},
        {"kwargs": {}},
        {"a": {"b": {"c": 1}}},
        [[1, 2], [3]],
    ),
)
FREE = ("out", "kwargs.seed", "name")
"""Texts or numbers of which any is right."""


@dataclass(frozen=True)
class Wrong:
    """A study file that is wrong, or odd.

    names: words of which one must stand in the refusal.
    refused: whether it must be refused; otherwise it may be right.
    """

    content: bytes
    names: tuple[str, ...] = ()
    refused: bool = False


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every key and item."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from places(value, (*at, key))


def text(tree: Any) -> bytes:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode()


def _parent(tree: Any, place: tuple[Any, ...]) -> Any:
    for each in place[:-1]:
        tree = tree[each]
    return tree


def _names(place: tuple[Any, ...]) -> tuple[str, ...]:
    """The words of a place, and the name of the entry of a list."""
    return tuple(str(each) for each in place if isinstance(each, str))


def _odd_value(draw: random.Random) -> Wrong:
    tree, place = copy.deepcopy(BASE), draw.choice([*places(BASE)])
    value = draw.choice(ODD)
    _parent(tree, place)[place[-1]] = value
    return Wrong(text(tree), _names(place))


def _keys(draw: random.Random) -> tuple[Any, tuple[Any, ...]]:
    return copy.deepcopy(BASE), draw.choice([each for each in places(BASE) if isinstance(each[-1], str)])


def _removed_key(draw: random.Random) -> Wrong:
    tree, place = _keys(draw)
    del _parent(tree, place)[place[-1]]
    return Wrong(text(tree), _names(place), refused=place[-1] in ("out", "data", "model", "attribution_methods"))


def _typo(draw: random.Random) -> Wrong:
    tree, place = _keys(draw)
    key, at = place[-1], draw.randrange(len(place[-1]))
    typo = draw.choice([key[:at] + key[at + 1 :], key[:at] + "q" + key[at:], key.upper()])
    section = _parent(tree, place)
    value = section.pop(key)
    section[typo] = value
    free = place[0] == "variants" and len(place) == 2  # the name of a variant
    return Wrong(text(tree), (typo, *_names(place)), refused=not free)


def _typo_of_a_word(draw: random.Random) -> Wrong:
    tree = copy.deepcopy(BASE)
    words = [each for each in places(BASE) if each[-1] in ("call", "method", "keep") or each[0] == "post"]
    place = draw.choice([each for each in words if isinstance(_parent(BASE, each)[each[-1]], str)])
    word = _parent(tree, place)[place[-1]]
    at = draw.randrange(len(word))
    typo = word[:at] + "q" + word[at + 1 :]
    _parent(tree, place)[place[-1]] = typo
    return Wrong(text(tree), (typo.rpartition(".")[2],), refused=True)


def _further_key(draw: random.Random) -> Wrong:
    tree, place = _keys(draw)
    section = _parent(tree, place)
    section["surplus"] = draw.choice(ODD)
    free = place[0] == "variants" and len(place) == 2
    return Wrong(text(tree), ("surplus",), refused=not free)


def _negative(draw: random.Random) -> Wrong:
    tree = copy.deepcopy(BASE)
    found = [each for each in places(BASE) if isinstance(_parent(BASE, each)[each[-1]], int | float)]
    place = draw.choice(found)
    _parent(tree, place)[place[-1]] = draw.choice([-1, -10, -0.1])
    free = place[-1] == "value" or place[0] == "data"  # a fill may be of any value, and the seed of data, too
    return Wrong(text(tree), (*_names(place), "seed"), refused=not free)


def _wrong_class(draw: random.Random) -> Wrong:
    """A number becomes a text, a text a number, a section a list."""
    tree, place = copy.deepcopy(BASE), draw.choice([*places(BASE)])
    section = _parent(tree, place)
    value = section[place[-1]]
    if isinstance(value, dict):
        section[place[-1]] = [*value.values()]
    elif isinstance(value, list):
        section[place[-1]] = {f"k{i}": each for i, each in enumerate(value)}
    else:
        section[place[-1]] = 3.25 if isinstance(value, str) else f"{value} pieces"
    return Wrong(text(tree), _names(place), refused=True)


def _duplicate(draw: random.Random) -> Wrong:
    lines = text(BASE).decode().splitlines()
    at = draw.choice([i for i, line in enumerate(lines) if ": " in line and not line.lstrip().startswith("-")])
    lines.insert(at + 1, lines[at])
    return Wrong("\n".join(lines).encode(), (lines[at].split(":")[0].strip(),), refused=True)


TRAPS = {
    "repeats": (
        "010",
        "0x1F",
        "1:30",
        "yes",
        "on",
        "~",
        "1_0",
        "0b11",
        "9" * 5000,
        "1e999",
        "2001-01-01",
        "'1'",
        ".inf",
    ),
    "fractions": ("[1:30]", "[yes]", "[.nan]", "[true]", "[1,5]", "0.3, 0.7", "[1e999]", "[0.3, 0.3]", "[-0.0, 2]"),
    "seed": ("1e3", "0o17", "true", "!!str 1", "!!float 1", "9" * 400),
}


def _trap(draw: random.Random) -> Wrong:
    key = draw.choice([*TRAPS])
    value = draw.choice(TRAPS[key])
    tree = {name: each for name, each in BASE.items() if name != key}
    return Wrong(text(tree) + f"{key}: {value}\n".encode(), (key,))


def _explosion(draw: random.Random) -> Wrong:
    """Anchors in anchors, deep nesting, many variants, tags that make objects."""
    levels = draw.randint(6, 12)
    bomb = "x-a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"x-a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, levels)
    )
    start = "{a: " * draw.randint(50, 5000)
    kinds = (
        (bomb, ("anchors",)),
        (f"x-deep: {'[' * draw.randint(50, 100_000)}", ("levels", "study.yml")),
        (f"x-deep: {start}", ("levels", "study.yml")),
        ("x-self: &s [*s]\n", ("itself",)),
        ("x-self: &s {a: *s}\n", ("itself",)),
        ("x-code: !!python/object/apply:os.system ['touch executed']\n", ("python",)),
        ("x-code: !!python/name:os.system\n", ("python",)),
        ("variants: {" + ", ".join(f"v{i}: {{seed: {i}}}" for i in range(5000)) + "}\n", ("variants",)),
        ("seeds: [" + ", ".join(map(str, range(20_000))) + "]\n", ("seeds",)),
        ("x-big: " + "y" * 2_000_000 + "\n", ("study.yml",)),
        ("x-merge: {<<: [1, 2]}\n", ("study.yml",)),
        ("? {a: 1}\n: 2\n", ("study.yml",)),
        ("---\nout: other\n", ("study.yml",)),
        ("x-anchor: *nothing\n", ("nothing",)),
    )
    more, names = draw.choice(kinds)
    tree = {name: each for name, each in BASE.items() if name != "variants"}
    return Wrong(text(tree) + more.encode(), names, refused=True)


def _encoding(draw: random.Random) -> Wrong:
    content = text(BASE | {"x-note": "é"})
    at = draw.randrange(len(content))
    return draw.choice(
        [
            Wrong(content.decode().encode(draw.choice(["utf-16", "utf-32"])), refused=True),
            Wrong(content.decode().encode("latin-1"), refused=True),
            Wrong(content[:at] + bytes([draw.choice([0, 1, 7, 11, 127, 255])]) + content[at:]),
            Wrong(b"\xef\xbb\xbf" + content),
            Wrong(content.replace(b"\n", b"\r\n")),
            Wrong(content.replace(b"  ", b"\t", draw.randint(1, 5)), refused=True),
            Wrong(draw.randbytes(draw.randint(0, 3000)), refused=True),
            Wrong(b"", refused=True),
        ]
    )


def _lines(draw: random.Random) -> Wrong:
    """Lines are lost, exchanged, moved in, or cut."""
    lines = text(BASE).decode().splitlines()
    for _ in range(draw.randint(1, 3)):
        at, other = draw.randrange(len(lines)), draw.randrange(len(lines))
        change = draw.randrange(5)
        if change == 0:
            del lines[at]
        elif change == 1:
            lines[at], lines[other] = lines[other], lines[at]
        elif change == 2:
            lines[at] = " " * draw.randint(1, 4) + lines[at]
        elif change == 3:
            lines[at] = lines[at][: draw.randrange(len(lines[at]) + 1)]
        else:
            lines[at] = lines[at].replace(":", "", 1)
    return Wrong("\n".join(lines).encode())


def _bytes(draw: random.Random) -> Wrong:
    content = bytearray(text(BASE))
    for _ in range(draw.randint(1, 4)):
        content[draw.randrange(len(content))] = draw.randrange(32, 127)
    return Wrong(bytes(content))


WAYS: dict[str, Callable[[random.Random], Wrong]] = {
    "odd value": _odd_value,
    "removed key": _removed_key,
    "typo of a key": _typo,
    "typo of a word": _typo_of_a_word,
    "further key": _further_key,
    "negative number": _negative,
    "wrong class": _wrong_class,
    "duplicate key": _duplicate,
    "trap of YAML": _trap,
    "explosion": _explosion,
    "encoding": _encoding,
    "lines": _lines,
    "bytes": _bytes,
}
