"""A method that learns from training images: what it is, how it is recognised, and what is asked of it."""

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from efface.types import Split

FIT = "fit(self, model, data, *, seed, rows)"


@runtime_checkable
class LearningMethod(Protocol):
    """A method of attribution that learns from training images before it is called.

    It must have, besides `__call__(model, images, targets)`:

    * `learnt`: what it learnt, tensors by name; before `fit` an empty dict, or not there. It is all that is kept: the
      method is made anew with its settings, is given `learnt`, and is called.
    * `fit(model, data, *, seed, max_batch)`, which sets `learnt`. data: the training split. seed: of all draws.
      max_batch: images in one pass, at least 1.

    It may have:

    * `learnt_from()`: the settings that `learnt` depends on, as a dict that JSON can write. Methods that answer alike
      learn once. Without it, `learnt` depends on all of the method's settings.
    """

    learnt: dict[str, Tensor]

    def fit(self, model: nn.Module, data: Split, *, seed: int, max_batch: int) -> None:
        """Learn from the training images."""
        ...


def is_learning(method: Any) -> bool:
    """Whether a method learns: a class with `fit`, what is made of it, its `functools.partial`, or a study's Call."""
    found = method.resolve() if hasattr(method, "resolve") else method
    if isinstance(found, functools.partial) and inspect.isclass(found.func):
        found = found.func
    return hasattr(found, "fit")


def check_learnt(name: str, method: Any) -> dict[str, Tensor]:
    """What a method has learnt. ValueError: its `fit` left no tensors; it names the method and what is misspelt.

    name: the method's place in the study, or the setting that it is.
    """
    found = getattr(method, "learnt", None)
    if isinstance(found, dict) and found and all(isinstance(each, Tensor) for each in found.values()):
        return found
    kind = type(method)
    raise ValueError(
        f"{name}: {kind.__module__}.{kind.__qualname__}.fit left no dict of tensors in its attribute 'learnt'; set it "
        f"there{_near('learnt', getattr(method, '__dict__', ()))}"
    )


def wrong_parts(kind: type, made: Any) -> list[str]:
    """What keeps a class from being a method that learns though it seems to be one, in sentences; else nothing.

    made: what was made of it.
    """
    path = f"{kind.__module__}.{kind.__qualname__}"
    if not hasattr(kind, "fit"):
        if not isinstance(getattr(made, "learnt", None), dict):
            return []
        functions = [name for name in dir(kind) if callable(getattr(kind, name)) and not name.startswith("_")]
        near = _near("fit", functions)
        return [f"{path} has 'learnt', but no fit, so it would learn nothing; expected {FIT}{near}"]
    problems = []
    if not callable(made.fit):
        return [f"{path}.fit is a {type(made.fit).__name__}; expected {FIT}"]
    if error := _unbound(made.fit):
        problems.append(f"{path}.fit cannot be called with (model, data, seed=..., rows=...): {error}; expected {FIT}")
    near = "" if hasattr(made, "learnt") else _near("learnt", getattr(made, "__dict__", ()))
    if near:  # without a name like it, the attribute may come with fit
        problems.append(f"{path} has a fit, but no attribute 'learnt' for fit to fill with tensors by name{near}")
    return problems


def _unbound(fit: Callable[..., Any]) -> str:
    """Why `fit` cannot be called as it will be; "" where it can."""
    try:
        inspect.signature(fit).bind("model", "data", seed=0, max_batch=1)
    except TypeError as error:
        return str(error)
    except ValueError:  # some builtins have no signature: nothing to check against
        return ""
    return ""


def _near(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, [each for each in known if each != name], n=1, cutoff=0.6)
    return f" (it has '{close[0]}': is that meant?)" if close else ""
