"""Methods that are settings of another method: they are built, fitted and restored together with it."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Method, Split, Target
from efface.plug.accepts import named, offer
from efface.plug.identity import code_of
from efface.plug.learning import check_learnt, is_learning
from efface.store.arrays import read_rows


class FittedInner:
    """A function together with inner methods that learn: they are fitted first, then the function is called with them.

    You do not write this class in a study. efface uses it when a setting `base` or `method` is a class with `fit`.
    Each inner method is fitted on the network that the outer function passes to it; for `explain_with` this is the
    second network. To find that network, the outer function runs once on one training image. It costs the fits of the
    inner methods and this one run.

    method: the function with its settings: a `functools.partial`, or the call that a study names.
    batched: False for a function of one image, `(model, image, label, **kwargs)`.
    """

    def __init__(self, *, method: Method, batched: bool = True) -> None:
        function, given = _apart(method)
        self.batched, self.inner = batched, {name: build_method(learner) for name, learner in _learners(method).items()}
        if not self.inner:
            raise ValueError(
                "FittedInner: no setting of its method is a class with fit; expected a function with such a setting, "
                "such as functools.partial(smooth_grad, base=ExpectedGradients): use the method itself"
            )
        self.method, self.function = method, partial(function, **given | self.inner)
        self.learnt: dict[str, Tensor] = {}
        if "score" in given:
            self.score = given["score"]  # `contrast` reads it
        whole = inspect.signature(function)
        still_open = [parameter for name, parameter in whole.parameters.items() if name not in given]
        self.__signature__ = whole.replace(parameters=still_open)  # the parameters that are not set yet

    def learnt_from(self) -> dict[str, Any]:
        """Return everything that `learnt` may depend on.

        In a study this is the whole function, because its settings may choose the network.
        """
        if hasattr(self.method, "identity"):
            return {"fit": "around", "method": self.method.identity()}
        return {"fit": "around", **{name: depends_on(learner) for name, learner in self.inner.items()}}

    def fit(self, model: nn.Module, data: Split, *, seed: int, max_batch: int) -> None:
        """Fit each inner method.

        max_batch: most images in one pass, at least 1.
        ValueError: the function needs the masks of the true object, and the data have none.
        """
        networks = self._shown(model, data, max_batch)
        learnt = (
            teach(name, learner, networks[name], data, seed=seed, max_batch=max_batch)
            for name, learner in self.inner.items()
        )
        self.learnt = {name: tensor for tensors in learnt for name, tensor in tensors.items()}

    def __call__(self, model: nn.Module, images: Images, targets: Target | int, **offered: Any) -> Any:
        """Return the function's maps.

        targets: the classes to explain; the label for a function of one image.
        offered: values for the parameters that are not set yet.
        """
        for name, learner in self.inner.items():
            restore(name, learner, self.learnt)
        return self.function(model, images, targets, **offered)

    def _shown(self, model: nn.Module, data: Split, max_batch: int) -> dict[str, nn.Module]:
        """Return the network that the function passes to each inner method; the model where a method is not called."""
        first, shown = data.training[:1], dict[str, nn.Module]()
        images = read_rows(data.images, first).to(next(model.parameters(), torch.empty(0))).div(255)
        targets, seeds = (tensor.to(images.device) for tensor in (data.targets[first], draws.seeds_of("around", first)))
        offered: dict[str, Any] = {"seeds": seeds, "max_batch": max_batch, "classes_of": lambda _logits: targets}
        if data.masks is not None:
            offered["masks"] = data.masks[first].to(images.device)
        elif (masks := self.__signature__.parameters.get("masks")) and masks.default is inspect.Parameter.empty:
            raise ValueError(
                "needs the masks of the true object, which the training images do not have; choose data that have "
                "them, such as patches, or drop this method"
            )

        def watched(name: str) -> Callable[..., Images]:
            def watches(network: nn.Module, images: Images, _targets: Target, **_: Any) -> Images:
                shown[name] = network
                return torch.zeros_like(images)

            signature = inspect.signature(self.inner[name])
            own = getattr(self.inner[name], "__dict__", {})
            vars(watches).update(own, __signature__=signature)  # callers inspect the signature, so imitate it
            return watches

        watching = partial(self.function, **{name: watched(name) for name in self.inner})
        try:
            if self.batched:
                offer(watching, model, images, targets, **offered)
            else:
                watching(model, images, int(targets))
        except Exception:
            if len(shown) < len(self.inner):
                raise  # else all networks are known, and the function only cannot work with maps of zeros
        return dict.fromkeys(self.inner, model) | shown


def build_method(method: Method) -> Any:
    """Return the object to call for a method.

    A class is instantiated, with the settings of its `functools.partial` or of the study. A function with a setting
    that learns is wrapped in `FittedInner`, so that it can be fitted. Any other method is returned unchanged.
    """
    function, _ = _apart(method)
    if inspect.isclass(function):
        return method()
    return FittedInner(method=method) if _learners(method) else method


def ready(setting: str, method: Method) -> Any:
    """Return `build_method(method)`, for a function that fits nothing.

    ValueError: the method is a class that is not fitted.
    """
    function, _ = _apart(method)
    if inspect.isclass(function) and is_learning(function):
        raise ValueError(
            f"{setting} is the class {function.__qualname__}, which learns from training images, and a function "
            f"has none; expected one that has learnt: pass a fitted {function.__qualname__}, or fit "
            f"efface.methods.nested.FittedInner(method=functools.partial(..., {setting}={function.__qualname__}))"
        )
    return build_method(method)


def teach(name: str, method: Any, network: nn.Module, data: Split, *, seed: int, max_batch: int) -> dict[str, Tensor]:
    """Fit the method, and return its learnt tensors by name, each name with a prefix that no layer's name has.

    name: name of the setting that holds the method.
    """
    method.fit(network, data, **named(method.fit, {"seed": seed, "max_batch": max_batch}))
    return {f".{name}.{key}": tensor for key, tensor in check_learnt(name, method).items()}


def restore(name: str, method: Any, learnt: Mapping[str, Tensor]) -> None:
    """Give the method the tensors that `teach` returned. If there are none, the method stays unchanged."""
    prefix = f".{name}."
    own = {key.removeprefix(prefix): tensor for key, tensor in learnt.items() if key.startswith(prefix)}
    if own:
        method.learnt = own


def outside(learnt: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that the outer method itself learnt."""
    return {name: tensor for name, tensor in learnt.items() if not name.startswith(".")}


def depends_on(method: Any) -> dict[str, Any]:
    """Return what a method's `learnt` depends on, besides network, data and seed: its settings and its code."""
    path = _path(type(method))
    if not hasattr(method, "learnt_from"):
        raise ValueError(
            f"{path} learns within another method, but has no learnt_from; expected a method that returns the "
            "settings its fit depends on, as a dict: add it to the class"
        )
    return code_of(path, type(method)) | {"from": method.learnt_from()}


def _apart(method: Any) -> tuple[Any, dict[str, Any]]:
    """Return a function or class, and its settings from `functools.partial` or from a study's Call."""
    if isinstance(method, partial):
        return method.func, dict(method.keywords)
    if hasattr(method, "resolve"):
        return method.resolve(), method.settings()
    return method, {}


def _learners(method: Any) -> dict[str, Any]:
    """Return the settings that are learning methods.

    Of a study's Call, only the settings that its function takes as methods count.
    """
    _, given = _apart(method)
    methods = method.methods() if hasattr(method, "resolve") else given
    return {name: setting for name, setting in given.items() if name in methods and _learns(setting)}


def _learns(given: Any) -> bool:
    """Return True if a setting is a learning method or has one as a setting; a network with a `fit` does not count."""
    if isinstance(given, partial):
        return (inspect.isclass(given.func) and _learns(given.func)) or any(map(_learns, given.keywords.values()))
    resolved = given.resolve() if hasattr(given, "resolve") else given
    if issubclass(resolved if inspect.isclass(resolved) else type(resolved), nn.Module):
        return False
    return is_learning(given) or getattr(given, "learns", False) is True


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
