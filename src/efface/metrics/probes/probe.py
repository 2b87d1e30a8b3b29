"""The contract of a probe: its needs, its description and its required parts; and a check that names each fault."""

import contextlib
import dataclasses
import difflib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch import nn

from efface.base.shown import shown
from efface.base.types import Images
from efface.metrics.probes.case import Case
from efface.store.results import Score
from efface.training.generate import Sampling
from efface.training.loop import TrainingSettings


@dataclass(frozen=True)
class Needs:
    """Requests of a probe to a study. The defaults suit a probe that scores the given network and reads stored maps.

    maps: the probe reads the stored maps of a method. Without maps and method, all methods share its score.
    network: the probe scores the given network. False: it trains a new network with the study's `fit`, on the maps of
        both splits.
    method: the probe runs the method again, through `case.explain`.
    training: the probe trains with the study's `fit` although it scores the given network. Its metric sets
        `needs_fit=True`.
    masks: the probe reads the masks of the true objects. Not all data have them.
    second_network: the probe runs the study's second network.
    samples: settings of the samples that the probe reads through `case.samples`. None: it reads none.
    blocks: the probe scores the images of `case.test_rows` alone, and returns one value for each of them. The value
        does not depend on the other images. A study with `decide` then measures blocks of images.
    """

    maps: bool = True
    network: bool = True
    method: bool = False
    training: bool = False
    masks: bool = False
    second_network: bool = False
    samples: Sampling | None = None
    blocks: bool = False

    @property
    def of_method(self) -> bool:
        """True if the score belongs to one method. Otherwise all methods share it."""
        return self.maps or self.method


@dataclass(frozen=True)
class Description:
    """Words for a table on the parts that a number depends on. "none" stands for a part that the probe does not use.

    unit: what is ranked or erased as a whole.
    imputer: what replaces an erased unit.
    ties: how equal values are ordered.
    count: how many units count.
    """

    unit: str = "none"
    imputer: str = "none"
    ties: str = "none"
    count: str = "none"


@runtime_checkable
class Probe(Protocol):
    """One unit of work of a metric: a frozen dataclass that is called with a case and returns a score of each image.

    A probe is a value. Equal probes are measured once, and a probe can be sent to other processes. There is no base
    class.

    A probe must have:

    * `needs`: a `Needs`, as a class attribute (`needs = Needs(masks=True)`) or a property.
    * `identity()`: what its number depends on besides data and network, as plain values: its name and its settings.
    * `cost(images, training)`: its work in forward passes of one image. images: number of images of each split.
      training: the study's training settings, or None. While the probe runs, `case.advance` must report the same total.
    * `__call__(case)`: the work itself.

    A probe may have:

    * `describe()`: a `Description`. Without it, the fields `unit` and `imputer`, or the probe's erasure, describe it.
    * `explains`: the class that it explains, if this is not the study's `explain`: "true" or "none".
    * `check(network, images)`: raises ValueError if its settings do not suit the network or two test images.
    * `map_values`: "pixel" or "feature", for a probe without a field `unit`. The values of a map that it reads.
      `efface check` uses it to test that the maps have this shape.
    * `can_drop_tokens = True`: its fill may be one that drops tokens, which makes no filled images. It then scores by
      `efface.metrics.probes.tokens.token_logits`. `can_drop_tokens = "cells"`: it drops all tokens of a cell by itself,
      so the unit need not be `token`.
    * a field `post`: the changes of a map before the probe reads it.
    """

    @property
    def needs(self) -> Needs: ...

    def identity(self) -> dict[str, Any]: ...

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None, /) -> float: ...

    def __call__(self, case: Case, /) -> Score: ...


@runtime_checkable
class Describes(Protocol):
    """A probe with a description of its own."""

    def describe(self) -> Description: ...


@runtime_checkable
class Explains(Protocol):
    """A probe that explains another class than the study's."""

    @property
    def explains(self) -> str: ...


@runtime_checkable
class Checks(Protocol):
    """A probe that checks whether its settings suit a network and images."""

    def check(self, network: nn.Module, images: Images, /) -> None: ...


@runtime_checkable
class ReadsValues(Protocol):
    """A probe that declares which values of a map it reads."""

    @property
    def map_values(self) -> Literal["pixel", "feature"]: ...


@runtime_checkable
class _HasNeeds(Protocol):
    @property
    def needs(self) -> object: ...


_MUST = {
    "needs": "needs = Needs(...): its requests to a study",
    "identity": "identity() -> dict: what its number depends on, as plain values",
    "cost": "cost(images, training) -> float: its work in forward passes",
    "__call__": "__call__(case) -> Score: the work itself",
}
_CALLED = {"identity": (), "cost": ("images", "training"), "__call__": ("case",), "describe": ()}
_CALLED_IF_THERE = {"check": ("network", "images")}
_KNOWN = {*_MUST, *_CALLED, *_CALLED_IF_THERE, "explains", "map_values", "post", "unit", "imputer", "can_drop_tokens"}
_WORDS = {"map_values": ("pixel", "feature", None), "explains": ("true", "none", "predicted")}
_FORMER = {
    "needs_map": "needs = Needs(maps=...)",
    "needs_network": "needs = Needs(network=...)",
    "needs_method": "needs = Needs(method=True)",
    "needs_fit": "needs = Needs(training=True)",
    "needs_masks": "needs = Needs(masks=True)",
    "needs_judge": "needs = Needs(second_network=True)",
    "sampling": "needs = Needs(samples=...)",
    "conventions": "describe() -> Description",
    "takes": "map_values",
    "costs": "cost(images, training)",
}
"""Parts of the contract of efface 0.1, and what replaces them."""
_SEE = "see docs/extending.md"


def check_probe(where: str, probe: object) -> list[str]:
    """Return sentences on missing, misspelt or wrong parts of a probe; an empty list for a correct one.

    where: the metric in the words of the study, such as `metrics.mine`.
    """
    return [f"{where}: the probe {type(probe).__name__} {fault} ({_SEE})" for fault in _faults(probe)]


def _faults(probe: object) -> Iterator[str]:
    if not dataclasses.is_dataclass(probe) or isinstance(probe, type) or probe.__hash__ is None:
        yield "is not a frozen dataclass; write @dataclass(frozen=True) above its class"
        return
    own = [name for name in _names(probe) if name not in _KNOWN]
    meant = {name: part for name in own if (part := _meant(name))}
    correct = tuple(name for name in _names(probe) if name in _KNOWN)
    misspelt = {name: part for name, part in meant.items() if name.startswith("need") or not part.startswith(correct)}
    yield from (f"has '{name}', which nothing reads; did you mean {part}?" for name, part in misspelt.items())
    for name, part in _MUST.items():
        if name not in _names(probe) and not any(part.startswith(name) for part in misspelt.values()):
            yield f"has no '{name}'; add {part}"
    needs = probe.needs if isinstance(probe, _HasNeeds) else Needs()
    if not isinstance(needs, Needs):
        yield f"has a 'needs' that is a {type(needs).__name__}; expected needs = Needs(...)"
    yield from _unknown_words(probe)
    for name, given in (_CALLED | _CALLED_IF_THERE).items():
        if name not in _names(probe):
            continue
        fault = _not_called(getattr(probe, name), name, given)
        if fault := fault or (_not_plain(probe) if name == "identity" else ""):
            yield fault
        elif name == "identity":
            yield from _left_out(probe)


def _unknown_words(probe: object) -> Iterator[str]:
    """Yield the parts of a probe that are a word, where the word is unknown."""
    for name, words in _WORDS.items():
        if name in _names(probe) and (value := getattr(probe, name)) not in words:
            yield f"has a '{name}' that is {shown(value)}; expected {' or '.join(repr(word) for word in words if word)}"


def _left_out(probe: Any) -> Iterator[str]:
    """Yield the fields of a user's probe that its `identity()` does not depend on, so that a change keeps old results.

    A field with `compare=False` may be left out.
    """
    if type(probe).__module__.startswith("efface."):
        return
    before = probe.identity()
    for field in dataclasses.fields(probe):
        with contextlib.suppress(Exception):  # the probe may refuse another value
            value = getattr(probe, field.name)
            other = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v / 2 + 0.25, str: lambda v: f"{v}x"}
            if field.compare and type(value) in other:
                changed = dataclasses.replace(probe, **{field.name: other[type(value)](value)})
                if changed != probe and changed.identity() == before:
                    yield (
                        f"has an 'identity' that leaves out the field '{field.name}', so another value would keep old "
                        "results; add it, or declare the field with dataclasses.field(compare=False)"
                    )


def _not_plain(probe: Any) -> str:
    """Return the fault of what `identity()` returns if it is no dict that JSON can write, otherwise ""."""
    try:
        identity = probe.identity()
        if not isinstance(identity, dict):
            return f"has an 'identity' that returns a {type(identity).__name__}; expected a dict of plain values"
        json.dumps(identity)
    except Exception as error:  # noqa: BLE001  a probe of one's own may raise anything
        return (
            f"has an 'identity' that fails: {type(error).__name__}: {error}; return a dict of plain values, such as "
            "each.identity() for a Call"
        )
    return ""


def _names(probe: object) -> list[str]:
    """Return the names that the probe's own classes and fields define, without those that every object has."""
    fields = [field.name for field in dataclasses.fields(probe)]  # type: ignore[arg-type]
    return [*fields, *(name for kind in type(probe).__mro__[:-1] for name in vars(kind) if name not in fields)]


def _meant(name: str) -> str:
    """Return the part of the contract that a name probably stands for; "" for a name of the probe's own."""
    if name in _FORMER:
        return _FORMER[name]
    if name.startswith("need"):
        words = {f"needs_{field.name}": field.name for field in dataclasses.fields(Needs)}
        former = {old: new for old, new in _FORMER.items() if old.startswith("needs_")}
        if close := difflib.get_close_matches(name, [*words, *former], n=1, cutoff=0.7):
            return former.get(close[0]) or f"needs = Needs({words[close[0]]}=True)"
        return "needs = Needs(...)"
    parts = [*_MUST, "describe", "explains", "check", "map_values"]
    close = [] if name.startswith("_") else difflib.get_close_matches(name, parts, n=1, cutoff=0.8)
    return close[0] if close else ""


def _not_called(part: Any, name: str, given: tuple[str, ...]) -> str:
    """Return the fault of a probe's method if it is no method or does not take these arguments, otherwise ""."""
    expected = f"{name}({', '.join(given)})"
    if not callable(part):
        return f"has a '{name}' that is a {type(part).__name__}; expected a method {expected}"
    try:
        inspect.signature(part).bind(*given)
    except TypeError as error:
        return f"has a '{name}' that cannot be called as {expected}: {error}; change its arguments"
    except ValueError:  # some builtins have no signature
        pass
    return ""
