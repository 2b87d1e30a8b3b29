"""Trial of a method on small networks of several kinds, with fresh weights: whether it works, and what it costs.

`efface show` and scripts/describe_networks.py use it. Nothing is downloaded.
"""

import importlib
import inspect
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from efface.base.types import Split
from efface.methods.calling import OFFERS, MethodCall, attribute
from efface.models import resnet, torchvision
from efface.models.adapt import Adaptation, adapted
from efface.models.around import normalised
from efface.models.hookable import make_hookable
from efface.models.normalise import normalisation
from efface.plug.call import Call

SIDE, CLASSES, TAUGHT = 64, 10, 8  # side of most images, classes, training images for methods that learn
FEW = {"samples": 2, "steps": 2, "channels": 2, "pool": TAUGHT, "places": 4, "masks": 4, "clusters": 4}
FEW |= {"patch": SIDE // 4, "stride": SIDE // 4}
CLASSES_OF = {"Vision_Transformer": "VisionTransformer", "Swin_Transformer": "SwinTransformer"}
"""Classes of torchvision, by the names of their files where these differ by more than capitals."""
COUNTED = 4  # images on which passes are counted
MANY = 300  # passes of an image above which the passes of a call count as those of the image


@dataclass(frozen=True)
class Built:
    """A network to try methods on.

    what: how a study names it. build: makes it with fresh weights. side: of its images.
    """

    what: str
    build: Callable[[], nn.Module]
    side: int = SIDE


def small(kind: str, make: Callable[..., nn.Module] | None = None, **settings: Any) -> Built:
    """Return a network of one of torchvision's classes, with fewer and narrower layers than those that have a name."""

    def build() -> nn.Module:
        file = importlib.import_module(f"torchvision.models.{kind.lower()}")
        made = (make or getattr(file, CLASSES_OF.get(kind, kind)))(num_classes=CLASSES, **settings)
        make_hookable(made)
        return normalised(made, normalisation(torchvision.IMAGENET_MEAN, torchvision.IMAGENET_STD))

    return Built(f"torchvision's class {CLASSES_OF.get(kind, kind)}, small", build)


def small_convnext() -> Built:
    """Return a small ConvNeXt, a convolutional network without ReLUs."""
    block = importlib.import_module("torchvision.models.convnext").CNBlockConfig
    return small("ConvNeXt", block_setting=[block(16, 32, 1), block(32, None, 1)])


RESNET = Built("resnet8 of efface", lambda: resnet.resnet8(num_classes=CLASSES), 32)
VIT = small("Vision_Transformer", image_size=SIDE, patch_size=16, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128)
SWIN = small("Swin_Transformer", patch_size=[4, 4], embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4])


def fresh(built: Built) -> nn.Module:
    """Return a network with fresh weights, as a study adapts it, whose every layer has an effect."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, _ = adapted(built.build(), Adaptation(), (3, built.side, built.side), CLASSES)
        for each in network.parameters():
            if each.abs().max() >= 1e-3 or (each.ndim == 1 and not each.any()):
                continue  # biases may be zero
            if each.ndim == 1:  # the scales of whole blocks start near zero, and grow in a training
                nn.init.constant_(each, 0.5)
            else:  # the heads of some transformers start at zero, so every gradient would be zero
                nn.init.xavier_uniform_(each)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # statistics of these images only; else deep features grow until softmax is 1
        with torch.no_grad():
            network.train()(torch.rand(TAUGHT, 3, built.side, built.side))
    return network.eval()


def needed(call: Call) -> list[str]:
    """Return the settings of a method that have no default and no value."""
    known = inspect.signature(call.resolve()).parameters
    return [
        name
        for name, each in known.items()
        if each.kind is each.KEYWORD_ONLY and each.default is each.empty and name not in {*OFFERS, *call.kwargs}
    ]


def few(call: Call, values: Mapping[str, int] = FEW) -> Call:
    """Return the call with fewer samples and steps, also in inner methods."""
    known = inspect.signature(call.resolve()).parameters
    kwargs = call.kwargs | {name: count for name, count in values.items() if name in known and name not in call.kwargs}
    kwargs |= {name: few(each, values).model_dump() for name, each in call.nested().items()}
    return call.model_copy(update={"kwargs": kwargs})


def tried(made: MethodCall, network: nn.Module, side: int, learnt: dict[str, dict[str, Tensor]]) -> str:
    """Return "" if there are maps; else why not, or how they differ. Unexplained errors begin with FAILS.

    learnt: tensors that methods learnt from this network, by the settings that they depend on.
    """
    images, targets = _asked(network, side)
    try:
        teach(made, network, images, targets, learnt)

        def maps_of(shift: int) -> dict[str, Tensor]:
            classes = (targets[:2] + shift) % CLASSES
            return attribute(made, network, images[:2], classes, seeds=torch.arange(2), max_batch=TAUGHT)

        shift, maps = 0, maps_of(0)
        while is_constant(maps) and shift < CLASSES - 1:  # with fresh weights, a ReLU may leave nothing of a class
            shift, maps = shift + 1, maps_of(shift + 1)
        other = maps_of(shift + 1)
    except Exception as error:  # noqa: BLE001  the table shows errors of every kind
        text = reason(str(error), type(network).__name__)
        is_refusal = isinstance(error, ValueError) and not str(error).startswith("attribution_methods.")
        return text if is_refusal else f"FAILS: {type(error).__name__}: {text}"
    if is_constant(maps):
        return "FAILS: the maps are constant"
    if all(torch.equal(each, other[name]) for name, each in maps.items()):
        return "differs: the map is the same for every class"
    return ""


def cost(made: MethodCall, network: nn.Module, side: int) -> dict[str, str]:
    """Return the forward and the backward passes of a method, in words. The errors are those of the method."""
    images, targets = _asked(network, side)
    teach(made, network, images, targets, {})

    def call(rows: Tensor) -> Callable[[], object]:
        return lambda: attribute(made, network, images[rows], targets[rows], seeds=rows, max_batch=TAUGHT)

    every, ways = torch.arange(COUNTED), ("forward", "backward")
    one = counted(network, call(every[:1]))
    if one.total() > MANY:
        return {way: f"{one[way]:,}" for way in ways}
    twice, many = (counted(network, call(rows)) for rows in (every[[0, 0]], every))
    return {way: passed(one[way], twice[way], many[way], COUNTED) for way in ways}


def _asked(network: nn.Module, side: int) -> tuple[Tensor, Tensor]:
    """Return images of noise n 3 h w, and the classes that the network sees in them."""
    images = torch.rand(TAUGHT, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return images, network(images).argmax(1)


def teach(
    made: MethodCall, network: nn.Module, images: Tensor, targets: Tensor, learnt: dict[str, dict[str, Tensor]]
) -> None:
    """Let a method that learns do so from these images, or take what was learnt with the same settings."""
    if not hasattr(made.call.resolve(), "fit"):
        return
    key = json.dumps(made.method.learnt_from()) if hasattr(made.method, "learnt_from") else made.call.text
    if key not in learnt:
        made.method.fit(network, Split(images.mul(255).byte(), targets), seed=0, max_batch=TAUGHT)
        learnt[key] = made.method.learnt
    made.method.learnt = learnt[key]


def counted(network: nn.Module, call: Callable[[], object]) -> Counter[str]:
    """Count the rows of all forward passes and of all backward passes in a call."""
    found: Counter[str] = Counter()

    def forward(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        found["forward"] += len(output)
        if output.requires_grad:
            output.register_hook(lambda gradient: found.update(backward=len(gradient)))

    handle = network.register_forward_hook(forward)
    try:
        call()
    finally:
        handle.remove()
    return found


def passed(one: int, twice: int, few: int, images: int) -> str:
    """Return the passes per image, and the additional passes per call.

    one: passes of one image.
    twice: passes of the same image twice.
    few: passes of `images` different images.
    """
    call = 2 * one - twice
    each = (few - call) / images
    return f"{round(each, 1):,g}" + (f" (and {call} a call)" if call else "")


def is_constant(maps: Mapping[str, Tensor]) -> bool:
    """Return whether all maps of a name have one value at all places."""
    return any(each.ndim > 1 and all(one.max() == one.min() for one in each) for each in maps.values())


def reason(text: str, network: str) -> str:
    """Return the first sentence of an error, without names and shapes that are those of one network.

    network: name of its class.
    """
    first = re.split(r";|, whose|, and a map of|\. ", re.sub(r"^[\w.]+: ", "", text), maxsplit=1)[0]
    first = re.sub(rf"\b{network}\b", "the network", first)
    first = re.sub(r"(layer )?'[\w.]+' \((\w+)\)", r"a \2", first)
    first = re.sub(r"layer '[\w.]+' of the network returns n( x \d+)+, which", "a layer", first)
    first = re.sub(r"returns shape \([\d, ]+\), and its bias has", "has a bias with", first)
    first = re.sub(r", so its parts miss the logit of the first image by [\d.e+-]+", "", first)
    first = re.sub(r"'[\w.]+\.(\w*bias)'", r"its \1", first)
    return re.sub(r" \('[^']*'\)|, '[\w.]+'(?=$|\.)", "", first)
