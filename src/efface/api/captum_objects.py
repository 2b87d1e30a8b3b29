"""Captum's objects, such as `IntegratedGradients(model)`, as settings of the method `captum`."""

import inspect
from typing import Any

from torch import nn

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
    if (layer := getattr(value, "layer", None)) is not None:
        names = [path for path, module in model.named_modules() if module is layer]
        if not names:
            raise ValueError(f"{where}: its layer is no module of the model that is handed over")
        settings["layer"] = names[0]
    if init := _init(where, value):
        settings["init"] = init
    return settings


def _init(where: str, value: Any) -> dict[str, Any]:
    """The settings that the object was made with, where they are not Captum's defaults."""
    init = {}
    for setting, parameter in inspect.signature(type(value).__init__).parameters.items():
        if (
            setting in ("self", "model", "forward_func", "layer", "device_ids")
            or parameter.default is inspect.Parameter.empty
        ):
            continue
        held = getattr(value, f"_{setting}", getattr(value, setting, parameter.default))
        if held is parameter.default or held == parameter.default:
            continue
        if not isinstance(held, bool | int | float | str):
            raise ValueError(
                f"{where}: its {setting} is a {type(held).__name__}, which a study cannot name; hand over a function "
                "(model, images, targets) -> maps that makes and calls it"
            )
        init[setting] = held
    return init
