"""Methods within a method: made from what the caller or the study names, taught with it, and read back with it."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from efface import draws
from efface.plug.accepts import named, offer
from efface.plug.identity import code_of
from efface.plug.learning import check_learnt, is_learning
from efface.store.arrays import read_rows
from efface.types import Images, Method, Split, Target


class FittedInner:
    """A function that takes methods of which some learn: they learn from training images, then it is called with them.

    A study needs no word of it: an entry whose `base` or `method` is a class with `fit` is made so. Each method learns
    with the network that the function shows to it, `explain_with` another than the one explained; to find it out, the
    function is called once, on one training image. Costs what the methods' fits cost, and that call.

    method: the function with its settings: a `functools.partial`, or as a study names it.
    batched: false for a function of one image, `(model, image, label, **kwargs)`.
    """

    def __init__(self, *, method: Method, batched: bool = True) -> None:
        function, given = _apart(method)
        self.batched, self.inner = batched, {name: made(each) for name, each in _learners(method).items()}
        if not self.inner:
            raise ValueError(
                "FittedInner: no setting of its method is a class with fit; expected a function that is given one, "
                "such as functools.partial(smooth_grad, base=ExpectedGradients): take the method itself"
            )
        self.method, self.function = method, partial(function, **given | self.inner)
        self.learnt: dict[str, Tensor] = {}
        if "score" in given:
            self.score = given["score"]  # `contrast` asks for it
        whole = inspect.signature(function)
        still_open = [each for name, each in whole.parameters.items() if name not in given]
        self.__signature__ = whole.replace(parameters=still_open)  # what it takes is what the function leaves open

    def learnt_from(self) -> dict[str, Any]:
        """All that `learnt` may depend on: in a study the whole function, for its settings may choose the network."""
        if hasattr(self.method, "identity"):
            return {"fit": "around", "method": self.method.identity()}
        return {"fit": "around", **{name: depends_on(each) for name, each in self.inner.items()}}

    def fit(self, model: nn.Module, data: Split, *, seed: int, max_batch: int) -> None:
        """Let each method learn.

        max_batch: images in one pass, at least 1.
        ValueError: the function needs the masks of the true object, and the data have none.
        """
        networks = self._shown(model, data, max_batch)
        learnt = (
            teach(name, each, networks[name], data, seed=seed, max_batch=max_batch) for name, each in self.inner.items()
        )
        self.learnt = {name: each for tensors in learnt for name, each in tensors.items()}

    def __call__(self, model: nn.Module, images: Images, targets: Target | int, **offered: Any) -> Any:
        """The function's maps. targets: the label, where it takes one image; offered: the settings it leaves open."""
        for name, each in self.inner.items():
            restore(name, each, self.learnt)
        return self.function(model, images, targets, **offered)

    def _shown(self, model: nn.Module, data: Split, max_batch: int) -> dict[str, nn.Module]:
        """The network that the function calls each method with; the model for one that it does not call."""
        first, shown = data.training[:1], dict[str, nn.Module]()
        images = read_rows(data.images, first).to(next(model.parameters(), torch.empty(0))).div(255)
        targets, seeds = (each.to(images.device) for each in (data.targets[first], draws.seeds_of("around", first)))
        offered: dict[str, Any] = {"seeds": seeds, "max_batch": max_batch, "classes_of": lambda _logits: targets}
        if data.masks is not None:
            offered["masks"] = data.masks[first].to(images.device)
        elif (masks := self.__signature__.parameters.get("masks")) and masks.default is inspect.Parameter.empty:
            raise ValueError(
                "needs the masks of the true object, which the training images do not have; choose data that have "
                "them, such as efface.data.patches.patches, or drop this method"
            )

        def watched(name: str) -> Callable[..., Images]:
            def watches(network: nn.Module, images: Images, _targets: Target, **_: Any) -> Images:
                shown[name] = network
                return torch.zeros_like(images)

            signature = inspect.signature(self.inner[name])
            own = getattr(self.inner[name], "__dict__", {})
            vars(watches).update(own, __signature__=signature)  # it is asked for what it is
            return watches

        watching = partial(self.function, **{name: watched(name) for name in self.inner})
        try:
            if self.batched:
                offer(watching, model, images, targets, **offered)
            else:
                watching(model, images, int(targets))
        except Exception:
            if len(shown) < len(self.inner):
                raise  # else all is known: it only cannot do with the zeros that it was given for maps
        return dict.fromkeys(self.inner, model) | shown


def made(method: Method) -> Any:
    """What is called in a method's place.

    A class is made, with the settings of its `functools.partial` or of the study; a function that is given methods that
    learn can learn then, too; all else is as it is.
    """
    function, _ = _apart(method)
    if inspect.isclass(function):
        return method()
    return FittedInner(method=method) if _learners(method) else method


def ready(setting: str, method: Method) -> Any:
    """`made`, for a function, which teaches nobody. ValueError: it is a class that has yet to learn."""
    found, _ = _apart(method)
    if inspect.isclass(found) and is_learning(found):
        raise ValueError(
            f"{setting} is the class {found.__qualname__}, which learns from training images, and a function has none; "
            f"expected one that has learnt: pass a fitted {found.__qualname__}, or let "
            f"efface.methods.nested.FittedInner(method=functools.partial(..., {setting}={found.__qualname__})) learn"
        )
    return made(method)


def teach(name: str, method: Any, network: nn.Module, data: Split, *, seed: int, max_batch: int) -> dict[str, Tensor]:
    """Let the method learn; what it learnt, each tensor's name behind a prefix that no layer of a network has.

    name: the setting that the method is.
    """
    method.fit(network, data, **named(method.fit, {"seed": seed, "max_batch": max_batch}))
    return {f".{name}.{each}": tensor for each, tensor in check_learnt(name, method).items()}


def restore(name: str, method: Any, learnt: Mapping[str, Tensor]) -> None:
    """Give the method back what `teach` returned; without that it stays as it is."""
    prefix = f".{name}."
    own = {each.removeprefix(prefix): tensor for each, tensor in learnt.items() if each.startswith(prefix)}
    if own:
        method.learnt = own


def outside(learnt: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was learnt by the outer method itself."""
    return {name: each for name, each in learnt.items() if not name.startswith(".")}


def depends_on(method: Any) -> dict[str, Any]:
    """What a method's `learnt` depends on, besides network, data and seed: its settings and its code."""
    path = _path(type(method))
    if not hasattr(method, "learnt_from"):
        raise ValueError(
            f"{path} learns within another method, but has no learnt_from; expected a method that returns the "
            "settings its fit depends on, as a dict: add it to the class"
        )
    return code_of(path, type(method)) | {"from": method.learnt_from()}


def _apart(method: Any) -> tuple[Any, dict[str, Any]]:
    """A function or class and the settings it is given, by `functools.partial` or by a study's Call."""
    if isinstance(method, partial):
        return method.func, dict(method.keywords)
    if hasattr(method, "resolve"):
        return method.resolve(), method.settings()
    return method, {}


def _learners(method: Any) -> dict[str, Any]:
    """The settings that are methods that learn. Of a study's Call only those that its function takes as methods."""
    _, given = _apart(method)
    methods = method.methods() if hasattr(method, "resolve") else given
    return {name: each for name, each in given.items() if name in methods and _learns(each)}


def _learns(given: Any) -> bool:
    """Whether a setting is a method that learns, or is given one; a network with a `fit` of its own is none."""
    if isinstance(given, partial):
        return (inspect.isclass(given.func) and _learns(given.func)) or any(map(_learns, given.keywords.values()))
    found = given.resolve() if hasattr(given, "resolve") else given
    if issubclass(found if inspect.isclass(found) else type(found), nn.Module):
        return False
    return is_learning(given) or getattr(given, "learns", False) is True


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
