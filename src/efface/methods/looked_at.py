"""Layers that methods look at, in words: for `check` and for the page."""

from collections.abc import Iterator

from torch import nn

from efface.base.types import Images
from efface.plug.call import Call
from efface.plug.facts import fact


def layers_looked_at(call: Call, model: nn.Module, images: Images) -> list[str]:
    """Return the layers that a method looks at, and how each is laid out, with the settings that hold other methods.

    A method says so itself, by the fact `looks_at`. For a method with a method as its base: `base: layer ...`.
    """
    return [f"{place}layer {said}" for place, said in _said(call, model, images, "")]


def _said(call: Call, model: nn.Module, images: Images, place: str) -> Iterator[tuple[str, str]]:
    looks_at, methods = fact(call.resolve(), "looks_at"), call.methods()
    if looks_at is not None:
        settings = {name: value for name, value in call.kwargs.items() if name not in methods}
        if said := looks_at(model, images, **settings):
            yield place, said
    for name, method in methods.items():
        yield from _said(method, model, images, f"{place}{name}: ")
