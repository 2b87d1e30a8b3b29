"""Whether Captum's hooks can reach what they must change: it passes over functions without a word."""

from collections import Counter
from typing import Any, NamedTuple

from torch import nn

from efface.methods.adapters import NON_LINEAR, depend, name_of, watching
from efface.methods.captum.plan import Plan
from efface.types import Images


class _Hooked(NamedTuple):
    """What a class of Captum's changes the way back through: the modules, and the functions that had to be modules."""

    modules: set[str]
    functions: set[str]


_RESCALED = {"ReLU", "ELU", "LeakyReLU", "Sigmoid", "Tanh", "Softplus", "MaxPool2d", "Softmax"}
_HOOKED = {
    "DeepLift": _Hooked(_RESCALED, NON_LINEAR | {"max_pool2d"}),
    "Guided": _Hooked({"ReLU"}, {"relu"}),
    "Deconvolution": _Hooked({"ReLU"}, {"relu"}),
    "LRP": _Hooked({"ReLU", "Tanh", "MaxPool2d"}, NON_LINEAR | {"max_pool2d"}),
}


def check_hooks(plan: Plan, model: nn.Module, images: Images) -> list[str]:
    """Refuse a network whose non-linearities, or sums under LRP, are functions. Costs one forward pass.

    Returns the names of the modules to be changed that ran more than once, which not every class can work with.
    """
    hooked = next((each for word, each in _HOOKED.items() if word in plan.name), None)
    if hooked is None:
        return []
    ran: Counter[str] = Counter()
    names = {
        each: name
        for name, each in model.named_modules()
        if type(each).__name__ in hooked.modules or ("LRP" in plan.name and next(each.children(), None) is None)
    }

    def seen(name: str, module: nn.Module, func: Any, args: Any, kwargs: Any) -> Any:
        if name in hooked.functions and type(module).__name__ not in hooked.modules:
            raise ValueError(
                f"captum's {plan.name} cannot change the {name} of {name_of(model, module)}; expected one of "
                f"the modules that it knows ({', '.join(sorted(hooked.modules))}): take another method"
            )
        if "LRP" in plan.name and name == "add" and depend(*args[:2]):
            raise ValueError(
                f"captum's {plan.name} counts relevance twice where {name_of(model, module)} adds two features; take "
                "efface.methods.zennit.attribute, which shares it between them"
            )
        return func(*args, **kwargs)

    handles = [each.register_forward_hook(lambda each, *_: ran.update([names[each]])) for each in names]
    try:
        with watching(model, seen):
            model(images.clone().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    return [name for name, count in ran.items() if count > 1]
