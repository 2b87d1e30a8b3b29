"""Captum's objects, such as `IntegratedGradients(model)`, as settings of the method `captum`."""

import inspect
from typing import Any

from torch import nn

from efface.plug.given import digest_of

_AROUND = "NoiseTunnel"


def is_captum(value: Any) -> bool:
    """Return whether a value is an attribution class of Captum, or an object of one."""
    kind = value if isinstance(value, type) else type(value)
    return kind.__module__.partition(".")[0] == "captum" and hasattr(kind, "attribute")


def captum_settings(name: str, value: Any, model: nn.Module) -> dict[str, Any]:
    """Return the settings of the method `captum` that computes what the object computes.

    name: of the method in messages.
    value: a class of Captum, or an object of one that was made for `model`.

    ValueError: the object explains another network, or holds what the settings of a study cannot say.
    """
    where = f"methods: {name}"
    if isinstance(value, type):
        return {"algorithm": value.__name__}
    if type(value).__name__ == _AROUND:
        inner = captum_settings(name, value.attribution_method, model)
        return inner | {"algorithm": _AROUND, "around": inner["algorithm"]}
    forward = getattr(value, "forward_func", None)
    if forward is not model and getattr(forward, "__self__", None) is not model:
        raise ValueError(
            f"{where}: was made for another network or for a function around it; make it for the model that is handed "
            f"over: {type(value).__name__}(model), or hand over a function (model, images, targets) -> maps"
        )
    settings: dict[str, Any] = {"algorithm": type(value).__name__}
    parameters = inspect.signature(type(value).__init__).parameters
    layer = _held(where, value, "layer") if "layer" in parameters else None
    if layer is not None:
        names = [path for path, module in model.named_modules() if module is layer]
        if not names:
            raise ValueError(f"{where}: its layer is no module of the model that is handed over")
        settings["layer"] = names[0]
    if init := _init(where, value, model, layer):
        settings["init"] = init
    return settings


def _init(where: str, value: Any, model: nn.Module, layer: nn.Module | None) -> dict[str, Any]:
    """The settings that the object was made with, where they are not those of an object made by default."""
    plain, init = type(value)(model, *(() if layer is None else (layer,))), {}
    for setting, parameter in inspect.signature(type(value).__init__).parameters.items():
        if setting in ("self", "device_ids") or parameter.default is inspect.Parameter.empty:
            continue
        held, usual = _held(where, value, setting), _held(where, plain, setting)
        if held is usual or digest_of(held) == digest_of(usual):
            continue
        if not isinstance(held, bool | int | float | str):
            raise ValueError(
                f"{where}: its {setting} is a {type(held).__name__}, which a study cannot name; hand over a function "
                "(model, images, targets) -> maps that makes and calls it"
            )
        init[setting] = held
    return init


def _held(where: str, value: Any, setting: str) -> Any:
    """What an object, or one inside it, was made with. ValueError: it does not show."""
    for one in (value, *(inner for inner in vars(value).values() if is_captum(inner))):
        for name in (f"_{setting}", setting):
            if name in vars(one):
                return vars(one)[name]
    raise ValueError(
        f"{where}: {type(value).__name__} does not show which {setting} it was made with; hand over a function (model, "
        "images, targets) -> maps that makes and calls it"
    )
