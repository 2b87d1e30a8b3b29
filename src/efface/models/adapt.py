"""Adaptation of a network from any source: images in [0, 1] go in, logits n k come out, and its names stay.

A network may return a tuple, a dict, an object with `.logits`, one logit, or probabilities, and it may expect
normalised images. Such a network becomes an instance of a subclass of its own class, with another `forward`. Its
modules, their names and its state dict are those that its author gave them. A normalisation is one more module,
`normalise`, without weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from efface.models.around import around, normalised
from efface.models.normalise import Normalise
from efface.models.tokens import STATED, TokenGrid
from efface.models.unwrap import unwrapped

Outputs = Literal["logits", "binary", "probabilities"]
"""Kind of the numbers that a network returns.

logits: scores of the classes before a softmax, n k.
binary: one logit z for each image, of shape n or n 1: of the second class against the first. It becomes the columns
    -z/2 and z/2, whose softmax is the sigmoid of z.
probabilities: n k; or n or n 1, for the probability of the second class. They become logarithms of at least 1e-12.
"""

LEAST = 1e-12
"""Least probability of which the logarithm is taken."""


@dataclass(frozen=True)
class Adaptation:
    """Facts about a network that the study states and the network's function does not know.

    outputs: what its numbers are; None: logits, which efface checks.
    mean, std: of each channel, for images in [0, 1]; None: the network takes images in [0, 1].
    tokens: how the tokens of a transformer lie; None: efface finds it out.
    """

    outputs: Outputs | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    tokens: TokenGrid | None = None

    def identity(self) -> dict[str, Any]:
        """Return what logits and maps depend on. It is empty for an adaptation that changes nothing."""
        outputs = None if self.outputs == "logits" else self.outputs
        settings = {"outputs": outputs, "mean": self.mean, "std": self.std, "tokens": self.tokens}
        return {name: value for name, value in settings.items() if value is not None}


def adapted(
    network: Any, adaptation: Adaptation, shape: Sequence[int], classes: int | None = None
) -> tuple[nn.Module, list[str]]:
    """Return the network with images in [0, 1] as input and logits as output, and a sentence for each change.

    shape: c h w of an image. The network runs once on a grey image, because only its output shows what it returns. A
        class that says `returns_logits = True` in its own body is believed, and its answers are checked later.
    classes: number of classes of the data, if known.
    ValueError: it is no module, it has layers of 8 bits or a normalisation already, or its logits cannot be found.
    """
    if not isinstance(network, nn.Module):
        raise ValueError(f"gives a {type(network).__name__}; expected a torch.nn.Module that takes images n c h w")
    network, changes = unwrapped(network)
    _refuse_low_bits(network)
    if adaptation.mean is not None or adaptation.std is not None:
        network = _normalised(network, adaptation.mean, adaptation.std, shape)
    if adaptation.tokens is not None:
        vars(network)[STATED] = adaptation.tokens
    if vars(type(network)).get("returns_logits") is True and adaptation.outputs is None and _is_float32(network):
        return network, changes
    answer, more = _answer(network, shape)
    where = place_of_logits(answer)
    if where:
        _refuse_features(answer, where, classes)
        more.append(f"the network returns {_described(answer)}; efface takes {where} as its logits")
    logits = _taken(answer)
    low = logits.is_floating_point() and logits.dtype.itemsize < 4
    if low:
        more.append(
            f"the network returns {str(logits.dtype).removeprefix('torch.')}; its logits are now float32, and what it "
            "computes before stays as it is"
        )
    if where or low or adaptation.outputs in ("binary", "probabilities"):
        network = around(network, after=partial(read_logits, outputs=adaptation.outputs))
    return network, changes + more


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


def _refuse_features(answer: Any, where: str, classes: int | None) -> None:
    """Raise ValueError if the entry that is taken has not as many columns as there are classes, but another has."""
    entries = (
        list(answer.values()) if isinstance(answer, Mapping) else list(answer) if isinstance(answer, Sequence) else []
    )
    shapes = [tuple(entry.shape) for entry in entries if isinstance(entry, Tensor)]
    logits = read_logits(answer)
    if classes is None or logits.ndim != 2 or logits.shape[1] == classes or (1, classes) not in shapes:
        return
    raise ValueError(
        f"the network returns {_described(answer)} with shapes {', '.join(map(str, shapes))} for one image, and "
        f"{where} would be its logits; but the data have {classes} classes, and another entry has as many columns: "
        "wrap the network so that it returns its logits"
    )


def _refuse_low_bits(network: nn.Module) -> None:
    """Raise ValueError if a layer is quantised: no gradient passes through it, so that maps would be wrong."""
    names = [
        name or "the network itself"
        for name, module in network.named_modules()
        if "quantized" in type(module).__module__ and next(module.children(), None) is None
    ]
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise ValueError(
            f"has quantised layers of 8 bits ({', '.join(names[:5])}{more}), through which no gradient passes, so most "
            "maps of it would be wrong; hand over the network in float32, as it was before it was quantised"
        )


def read_logits(answer: Any, outputs: Outputs | None = None) -> Tensor:
    """Return the logits of a network's answer as `outputs` says; see `Outputs` for the shapes."""
    answer = _taken(answer)
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


def _taken(answer: Any) -> Tensor:
    """Return the tensor in a network's answer that `place_of_logits` names, as it is."""
    where = place_of_logits(answer)
    if where == "`.logits`":
        answer = answer.logits
    elif where == "the first entry":
        answer = answer[0]
    elif where:
        answer = next(value for name, value in answer.items() if where == f"the entry {name!r}")
    tensor: Tensor = answer
    return tensor


def _is_float32(network: nn.Module) -> bool:
    return all(parameter.dtype == torch.float32 for parameter in network.parameters())


def _answer(network: nn.Module, shape: Sequence[int], before: nn.Module | None = None) -> tuple[Any, list[str]]:
    """Return the network's answer on a grey image, and a sentence if its weights had to become float32.

    before: a module that the images pass through before.
    """
    first = next((tensor for tensor in (*network.parameters(), *network.buffers()) if tensor.is_floating_point()), None)
    images = torch.full((1, *shape), 0.5, device=first.device if first is not None else "cpu")
    images = images if before is None else before.to(images.device)(images)
    modes = [(module, module.training) for module in network.modules()]
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            _evaluate(network)
            try:
                return network(images), []
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                kinds = {parameter.dtype for parameter in network.parameters() if parameter.is_floating_point()}
                if not kinds or torch.float32 in kinds or isinstance(network, torch.jit.ScriptModule):
                    raise
                answer = network.float()(images)
                shown = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
                return answer, [f"the network's weights are {shown}, which its own input is not; they are now float32"]
    finally:
        for module, mode in modes:
            module.training = mode


def _evaluate(network: nn.Module) -> None:
    try:
        network.eval()
    except NotImplementedError as error:
        raise ValueError(
            "is a program of torch.export, which has no layers for methods and no evaluation mode; hand over the "
            "network itself"
        ) from error


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
    wrapped = normalised(network, layer)
    if not torch.allclose(read_logits(_answer(wrapped, shape)[0]), expected, equal_nan=True):
        raise ValueError(
            f"mean and std do not fit {type(network).__name__}, which runs all its children in a loop; normalise the "
            "images in the network's own forward"
        )
    return wrapped


def _described(answer: object) -> str:
    if isinstance(answer, Mapping):
        return f"a dict ({type(answer).__name__}) with {', '.join(map(str, answer))}"
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        return f"a {type(answer).__name__} of {len(answer)}"
    return "nothing" if answer is None else f"an object of type {type(answer).__name__}"
