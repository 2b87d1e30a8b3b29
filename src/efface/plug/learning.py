"""Methods that learn from training images: their contract, how efface recognises them, and checks of them."""

import difflib
import functools
import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from efface.base.types import Split

FIT = "fit(self, model, data, *, seed, max_batch)"


@runtime_checkable
class LearningMethod(Protocol):
    """An attribution method that learns from training images before it is called.

    It must have, besides `__call__(model, images, targets)`:

    * `learnt`: dict of the learnt tensors by name. Before `fit` it is empty or missing. Only `learnt` is stored: efface
      builds the method again from its settings, sets `learnt`, and calls the method.
    * `fit(model, data, *, seed, max_batch)`, which sets `learnt`. `data` is the training split. `seed` seeds all random
      numbers. `max_batch` is the number of images in one forward pass, at least 1.

    It may have:

    * `learnt_from()`: returns the settings that `learnt` depends on, as a dict that JSON can write. Methods that return
      equal dicts learn only once. Without `learnt_from`, `learnt` depends on all settings of the method.
    """

    learnt: dict[str, Tensor]

    def fit(self, model: nn.Module, data: Split, *, seed: int, max_batch: int) -> None:
        """Learn from the training images."""
        ...


def is_learning(method: Any) -> bool:
    """Return True if a method learns: a class with `fit`, its instance, its `functools.partial` or its Call."""
    target = method.resolve() if hasattr(method, "resolve") else method
    if isinstance(target, functools.partial) and inspect.isclass(target.func):
        target = target.func
    return hasattr(target, "fit")


def check_learnt(name: str, method: Any) -> dict[str, Tensor]:
    """Return the tensors that a method has learnt.

    name: place of the method in the study, or the setting that holds the method.

    ValueError: its `fit` left no tensors. The message names the method and a misspelt attribute.
    """
    tensors = getattr(method, "learnt", None)
    if isinstance(tensors, dict) and tensors and all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        return tensors
    kind = type(method)
    raise ValueError(
        f"{name}: {kind.__module__}.{kind.__qualname__}.fit left no dict of tensors in its attribute 'learnt', found "
        f"{_found(tensors)}; set it there{_near('learnt', getattr(method, '__dict__', ()))}"
    )


def _found(tensors: Any) -> str:
    """Return what stands in `learnt` instead of a dict of tensors, in words."""
    if tensors is None:
        return "nothing"
    if not isinstance(tensors, dict):
        return f"a {type(tensors).__name__}"
    wrong = {name: type(value).__name__ for name, value in tensors.items() if not isinstance(value, Tensor)}
    return ", ".join(f"a {kind} under '{name}'" for name, kind in wrong.items()) or "an empty dict"


def wrong_parts(kind: type, instance: Any) -> list[str]:
    """Return a sentence for each reason why a class that looks like a learning method is none.

    instance: an instance of the class.
    """
    path = f"{kind.__module__}.{kind.__qualname__}"
    if not hasattr(kind, "fit"):
        if not isinstance(getattr(instance, "learnt", None), dict):
            return []
        functions = [name for name in dir(kind) if callable(getattr(kind, name)) and not name.startswith("_")]
        near = _near("fit", functions)
        return [f"{path} has 'learnt', but no fit, so it would learn nothing; expected {FIT}{near}"]
    problems = []
    if not callable(instance.fit):
        return [f"{path}.fit is a {type(instance.fit).__name__}; expected {FIT}"]
    if error := _unbound(instance.fit):
        problems.append(
            f"{path}.fit cannot be called with (model, data, seed=..., max_batch=...): {error}; expected {FIT}"
        )
    near = "" if hasattr(instance, "learnt") else _near("learnt", getattr(instance, "__dict__", ()))
    if near:  # without a similar name, fit itself may create the attribute
        problems.append(f"{path} has a fit, but no attribute 'learnt' for fit to fill with tensors by name{near}")
    return problems + [f"{path} {fault}" for fault in _wrong_learnt_from(kind, instance)]


def _wrong_learnt_from(kind: type, instance: Any) -> Iterator[str]:
    """Yield a sentence if the optional `learnt_from` is misspelt, or returns no dict that JSON can write."""
    own = [name for ancestor in kind.__mro__[:-1] for name in vars(ancestor) if not name.startswith("_")]
    if "learnt_from" not in own:
        for name in difflib.get_close_matches("learnt_from", own, n=1, cutoff=0.75):
            yield f"has '{name}', which nothing reads; did you mean learnt_from?"
        return
    try:
        settings = instance.learnt_from()
        if isinstance(settings, dict):
            json.dumps(settings)
            return
    except Exception as error:  # noqa: BLE001  a class of one's own may raise anything
        yield f"has a 'learnt_from' that fails: {type(error).__name__}: {error}; return a dict that JSON can write"
        return
    yield f"has a 'learnt_from' that returns a {type(settings).__name__}; expected a dict that JSON can write"


def _unbound(fit: Callable[..., Any]) -> str:
    """Return the reason why `fit` cannot be called with its arguments; "" if it can."""
    try:
        inspect.signature(fit).bind("model", "data", seed=0, max_batch=1)
    except TypeError as error:
        return str(error)
    except ValueError:  # some builtins have no signature to check against
        return ""
    return ""


def _near(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, [other for other in known if other != name], n=1, cutoff=0.6)
    return f" (it has '{close[0]}': is that meant?)" if close else ""
