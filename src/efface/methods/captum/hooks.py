"""Check that Captum's hooks reach all operations that they must change; Captum silently skips functions."""

from collections import Counter
from typing import Any, NamedTuple

from torch import nn

from efface.base.types import Images
from efface.methods.adapters import NON_LINEAR, depend, module_name, watching
from efface.methods.captum.plan import CaptumMethod
from efface.models.hook_watch import is_scripted, look_in


class _Hooked(NamedTuple):
    """Operations whose backward pass a class of Captum changes.

    modules: names of the module classes that Captum changes.
    functions: names of torch functions that Captum does not change, so that the network must use modules instead.
    """

    modules: set[str]
    functions: set[str]


_RESCALED = {"ReLU", "ELU", "LeakyReLU", "Sigmoid", "Tanh", "Softplus", "MaxPool2d", "Softmax"}
_HOOKED = {
    "DeepLift": _Hooked(_RESCALED, NON_LINEAR | {"max_pool2d"}),
    "Guided": _Hooked({"ReLU"}, {"relu"}),
    "Deconvolution": _Hooked({"ReLU"}, {"relu"}),
    "LRP": _Hooked({"ReLU", "Tanh", "MaxPool2d"}, NON_LINEAR | {"max_pool2d"}),
}


def check_hooks(method: CaptumMethod, model: nn.Module, images: Images) -> list[str]:
    """Raise ValueError if non-linearities, or sums under LRP, are functions. It costs one forward pass.

    Returns the names of the modules to change that ran more than once. Some classes cannot work with such modules.
    """
    hooked = next((entry for word, entry in _HOOKED.items() if word in method.name), None)
    if hooked is None:
        return []
    if is_scripted(model):
        raise ValueError(f"captum's {method.name} changes layers, and those of a traced or scripted network do not run")
    ran: Counter[str] = Counter()
    names = {
        module: name
        for name, module in model.named_modules()
        if type(module).__name__ in hooked.modules or ("LRP" in method.name and next(module.children(), None) is None)
    }

    def seen(name: str, module: nn.Module, func: Any, args: Any, kwargs: Any) -> Any:
        if name in hooked.functions and type(module).__name__ not in hooked.modules:
            raise ValueError(
                f"captum's {method.name} cannot change the {name} of {module_name(model, module)}; expected one of "
                f"the modules that it supports ({', '.join(sorted(hooked.modules))}): choose another method"
            )
        if "LRP" in method.name and name == "add" and depend(*args[:2]):
            raise ValueError(
                f"captum's {method.name} counts relevance twice where {module_name(model, module)} adds two features; "
                "use efface.methods.zennit.attribute, which divides the relevance between them"
            )
        return func(*args, **kwargs)

    handles = [look_in(module, lambda called, *_: ran.update([names[called]])) for module in names]
    try:
        with watching(model, seen):
            model(images.clone().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    return [name for name, count in ran.items() if count > 1]
