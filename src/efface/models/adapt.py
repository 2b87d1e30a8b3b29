"""Adaptation of a network from any source: images in [0, 1] go in, logits n k come out, and its names stay.

A network may return a tuple, a dict, an object with `.logits`, one logit, or probabilities, and it may expect
normalised images. Such a network becomes an instance of a subclass of its own class, with another `forward`. Its
modules, their names and its state dict are those that its author gave them. A normalisation is one more module,
`normalise`, without weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from efface.models.normalise import Normalise

Outputs = Literal["logits", "binary", "probabilities"]
"""Kind of the numbers that a network returns.

logits: scores of the classes before a softmax, n k.
binary: one logit z for each image, of shape n or n 1: of the second class against the first. It becomes the columns
    -z/2 and z/2, whose softmax is the sigmoid of z.
probabilities: n k; or n or n 1, for the probability of the second class. They become logarithms of at least 1e-12.
"""

LEAST = 1e-12
"""Least probability of which the logarithm is taken."""

NORMALISE = ("normalise", "normalise_images")
"""Names of the module that normalises the images: the first that the network does not have."""


@dataclass(frozen=True)
class Adaptation:
    """Facts about a network that the study states and the network's function does not know.

    outputs: what its numbers are; None: logits, which efface checks.
    mean, std: of each channel, for images in [0, 1]; None: the network takes images in [0, 1].
    """

    outputs: Outputs | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def identity(self) -> dict[str, Any]:
        """Return what the network's logits depend on. It is empty for an adaptation that changes nothing."""
        outputs = None if self.outputs == "logits" else self.outputs
        found = {"outputs": outputs, "mean": self.mean, "std": self.std}
        return {name: value for name, value in found.items() if value is not None}


def adapted(network: Any, adaptation: Adaptation, shape: Sequence[int]) -> tuple[nn.Module, list[str]]:
    """Return the network with images in [0, 1] as input and logits as output, and a sentence for each change.

    shape: c h w of an image. The network runs once on a grey image, because only its output shows what it returns. A
        class that says `returns_logits = True` in its own body is believed, and its answers are checked later.
    ValueError: it is no module, it has a normalisation already, or nothing in its output can be logits.
    """
    if not isinstance(network, nn.Module):
        raise ValueError(f"gives a {type(network).__name__}; expected a torch.nn.Module that takes images n c h w")
    network, changes = unwrapped(network)
    if adaptation.mean is not None or adaptation.std is not None:
        network = _normalised(network, adaptation.mean, adaptation.std, shape)
    if vars(type(network)).get("returns_logits") is True and adaptation.outputs is None and _is_float32(network):
        return network, changes
    answer, more = _answer(network, shape)
    where = place_of_logits(answer)
    if where:
        more.append(f"the network returns {_described(answer)}; efface takes {where} as its logits")
    low = isinstance(answer, Tensor) and answer.is_floating_point() and answer.dtype.itemsize < 4
    if low:
        more.append(f"the network returns {str(answer.dtype).removeprefix('torch.')}; its logits are now float32")
    if where or low or adaptation.outputs in ("binary", "probabilities"):
        network = _around(network, after=partial(read_logits, outputs=adaptation.outputs))
    return network, changes + more


def unwrapped(network: nn.Module) -> tuple[nn.Module, list[str]]:
    """Return the network without torch.compile and DataParallel, under which hooks do not run, and what was done.

    The parameters are the same tensors. Compiled and parallel modules inside the network are replaced as well.
    """
    changes = dict[str, None]()

    def plain(module: nn.Module) -> nn.Module:
        while (inner := _inner(module)) is not None:
            kind = {"OptimizedModule": "torch.compile"}.get(type(module).__name__, type(module).__name__)
            changes[f"{kind} is taken off the network, because hooks of methods do not run inside it"] = None
            module = inner
        if getattr(module, "_compiled_call_impl", None) is not None:
            module._compiled_call_impl = None  # noqa: SLF001  torch has no public way back from `Module.compile`
            changes["torch.compile is taken off the network, because hooks of methods do not run inside it"] = None
        return module

    network = plain(network)
    for module in [] if isinstance(network, torch.jit.ScriptModule) else list(network.modules()):
        for name, child in list(module.named_children()):
            if (other := plain(child)) is not child:
                setattr(module, name, other)
    return network, list(changes)


def place_of_logits(answer: object) -> str:
    """Return the place of the logits in a network's answer, in words; an empty text for a tensor.

    ValueError: nothing in the answer is known to be logits.
    """
    if isinstance(answer, Tensor):
        return ""
    if isinstance(getattr(answer, "logits", None), Tensor):
        return "`.logits`"
    if isinstance(answer, Mapping):
        tensors = [name for name, value in answer.items() if isinstance(value, Tensor)]
        for name in ("logits", "out", "output"):
            if name in tensors:
                return f"the entry {name!r}"
        if len(tensors) == 1:
            return f"the entry {tensors[0]!r}"
    if isinstance(answer, Sequence) and answer and isinstance(answer[0], Tensor):
        return "the first entry"
    raise ValueError(
        f"the network returns {_described(answer)}, in which no logits are found; expected a tensor of shape (n, "
        "classes), an object with `.logits`, a dict with 'logits', or a tuple that begins with them: wrap the network"
    )


def read_logits(answer: Any, outputs: Outputs | None = None) -> Tensor:
    """Return the logits of a network's answer as `outputs` says; see `Outputs` for the shapes."""
    where = place_of_logits(answer)
    if where == "`.logits`":
        answer = answer.logits
    elif where == "the first entry":
        answer = answer[0]
    elif where:
        answer = next(value for name, value in answer.items() if where == f"the entry {name!r}")
    if answer.is_floating_point() and answer.dtype.itemsize < 4:
        answer = answer.float()
    one = answer.ndim == 1 or (answer.ndim == 2 and answer.shape[1] == 1)
    if outputs == "binary" and one:
        half = answer.reshape(-1, 1) / 2
        return torch.cat([-half, half], 1)
    if outputs == "probabilities":
        answer = answer.reshape(-1, 1) if one else answer
        return (torch.cat([1 - answer, answer], 1) if one else answer).clamp(min=LEAST).log()
    return answer


def _inner(module: nn.Module) -> nn.Module | None:
    """Return the module inside a wrapper of torch; None for any other module."""
    held = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
    name = held.get(type(module).__name__)
    found = getattr(module, name, None) if name and type(module).__module__.startswith("torch.") else None
    return found if isinstance(found, nn.Module) else None


def _is_float32(network: nn.Module) -> bool:
    return all(each.dtype == torch.float32 for each in network.parameters())


def _answer(network: nn.Module, shape: Sequence[int], before: nn.Module | None = None) -> tuple[Any, list[str]]:
    """Return the network's answer on a grey image, and a sentence if its weights had to become float32.

    before: a module that the images pass through before.
    """
    first = next((each for each in (*network.parameters(), *network.buffers()) if each.is_floating_point()), None)
    images = torch.full((1, *shape), 0.5, device=first.device if first is not None else "cpu")
    images = images if before is None else before.to(images.device)(images)
    modes = [(module, module.training) for module in network.modules()]
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            network.eval()
            try:
                return network(images), []
            except RuntimeError:
                kinds = {each.dtype for each in network.parameters() if each.is_floating_point()}
                if not kinds or torch.float32 in kinds or isinstance(network, torch.jit.ScriptModule):
                    raise
                answer = network.float()(images)
                shown = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
                return answer, [f"the network's weights are {shown}, which its own input is not; they are now float32"]
    finally:
        for module, mode in modes:
            module.training = mode


def _normalised(
    network: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None, shape: Sequence[int]
) -> nn.Module:
    """Return the network with a module `normalise` in front."""
    if mean is None or std is None:
        raise ValueError(f"mean is {mean}, std is {std}: give both or neither")
    for name, module in network.named_modules():
        if isinstance(module, Normalise):
            raise ValueError(
                f"the study gives mean and std, but the network has a normalisation ({name}: {module}); drop one"
            )
    if len(mean) != shape[0]:
        raise ValueError(f"mean and std have {len(mean)} numbers, the images {shape[0]} channels")
    layer = Normalise(mean, std)
    expected = read_logits(_answer(network, shape, layer)[0])
    found = normalised(network, layer)
    if not torch.allclose(read_logits(_answer(found, shape)[0]), expected, equal_nan=True):
        raise ValueError(
            f"mean and std do not fit {type(network).__name__}, which runs all its children in a loop; normalise the "
            "images in the network's own forward"
        )
    return found


def normalised(network: nn.Module, normalise: nn.Module) -> nn.Module:
    """Return the network with this module in front, under the name `normalise`. Other names do not change.

    The identity adds nothing.
    """
    if isinstance(normalise, nn.Identity):
        return network
    return _around(network, before=normalise)


class _Around:
    """A network with a module before its forward and a function after it. Mixed into a network's own class."""

    def forward(self, *arguments: Any, **settings: Any) -> Any:
        held = vars(self)
        before, after = held["_modules"].get(held.get("_normalises")), held.get("_after")
        if before is not None:
            arguments = (before(arguments[0]), *arguments[1:])
        answer = super().forward(*arguments, **settings)  # type: ignore[misc]
        return answer if after is None else after(answer)

    def __reduce_ex__(self, _: Any) -> Any:
        return _blank, (type(self).__mro__[2],), vars(self)


class _Outside(nn.Module):
    """A network whose class or forward cannot be changed, with a module before it and a function after it."""

    def __init__(self, network: nn.Module, before: nn.Module | None, after: Callable[[Any], Tensor] | None) -> None:
        super().__init__()
        self.add_module(NORMALISE[0], before)
        self.network, self.after = network, after

    def forward(self, images: Tensor) -> Any:
        before = getattr(self, NORMALISE[0])
        answer = self.network(images if before is None else before(images))
        return answer if self.after is None else self.after(answer)


def _around(
    network: nn.Module, before: nn.Module | None = None, after: Callable[[Any], Tensor] | None = None
) -> nn.Module:
    """Return the network with another forward; see `_Around`. Its class keeps its name."""
    if isinstance(network, torch.jit.ScriptModule) or "forward" in vars(network):
        return _Outside(network, before, after)
    in_a_row = type(network).forward is nn.Sequential.forward  # it runs all its children, so the first one as well
    if not isinstance(network, _Around):
        network.__class__ = _kind(type(network))
    if before is not None:
        name = next((each for each in NORMALISE if not hasattr(network, each)), None)
        if name is None:
            return _Outside(network, before, after)
        modules = dict(network._modules)  # noqa: SLF001  the first layer stands first
        network._modules.clear()  # noqa: SLF001
        network.add_module(name, before)
        network._modules.update(modules)  # noqa: SLF001
        vars(network)["_normalises"] = None if in_a_row else name
    if after is not None:
        vars(network)["_after"] = after
    return network


_KINDS: dict[type, Any] = {}


def _kind(kind: type) -> Any:
    """Return the subclass of a network's class that has `_Around`'s forward; always the same one."""
    if kind not in _KINDS:
        names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        _KINDS[kind] = type(kind.__name__, (_Around, kind), names)
    return _KINDS[kind]


def _blank(kind: type[nn.Module]) -> Any:
    """Return an instance of the subclass without any attributes, for copies and pickles."""
    made = _kind(kind)
    return made.__new__(made)


def _described(answer: object) -> str:
    if isinstance(answer, Mapping):
        return f"a dict ({type(answer).__name__}) with {', '.join(map(str, answer))}"
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        return f"a {type(answer).__name__} of {len(answer)}"
    return "nothing" if answer is None else f"an object of type {type(answer).__name__}"
