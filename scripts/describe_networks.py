"""Writes the tables of docs/choosing.md: which attribution methods work on which networks. Nothing is downloaded.

    python scripts/describe_networks.py [--networks ViT,Swin] [--methods grad_cam,rise]

It tries every method that has a short word, on small networks with fresh weights and small images of noise. A method
that learns from training images learns from a few of them. It took 15 minutes beside other work (862 s, AMD EPYC,
2026-11-30). With one of the options, the table of that part is only printed, and the page stays as it is.
"""

import argparse
import importlib
import inspect
import json
import re
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm as timm_package
import torch
import torchvision as torchvision_package
import transformers
from describe_methods import fill, markdown
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.vgg import VGG, make_layers

from efface.methods.calling import MethodCall, attribute
from efface.models import huggingface, resnet, timm, torchvision
from efface.models.adapt import Adaptation, adapted
from efface.models.around import normalised
from efface.models.hookable import make_hookable
from efface.models.normalise import normalisation
from efface.plug import words
from efface.plug.call import Call
from efface.study.schema import MethodEntry
from efface.types import Split

PAGE = Path(__file__).parents[1] / "docs" / "choosing.md"
SIDE, CLASSES, TAUGHT = 64, 10, 8  # side of most images, classes, training images for methods that learn
CONTROLS = "efface.methods.control."
HANDED = {"seeds", "max_batch", "masks", "classes_of"}  # passed by efface
FEW = {"samples": 2, "steps": 2, "channels": 2, "pool": TAUGHT, "places": 4, "masks": 4, "clusters": 4}
FEW |= {"patch": SIDE // 4, "stride": SIDE // 4}
SETTINGS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "bi_attn": {"bi_attn": {"start": 1}},  # these networks have three blocks
    "blur_ig": {"blur_ig": {"steps": 20}},  # its first images are so blurred that noise is flat there
    "captum": {
        "captum.DeepLift": {"algorithm": "DeepLift"},
        "captum.GradientShap": {"algorithm": "GradientShap", "attribute": {"n_samples": 2}},
        "captum.KernelShap": {"algorithm": "KernelShap", "cells": 2, "attribute": {"n_samples": 8}},
        "captum.LayerGradCam": {"algorithm": "LayerGradCam"},
    },
    "contrast": {"contrast": {"base": "grad_cam"}},
    "zennit": {"zennit.EpsilonPlusFlat": {"composite": "EpsilonPlusFlat"}},
}
"""Entries of the methods that need a setting, by their words, and the settings of each."""
OUTPUTS = {"smooth_grad_family": ("smooth_grad", "smooth_grad_squared", "var_grad")}
CLASSES_OF = {"Vision_Transformer": "VisionTransformer", "Swin_Transformer": "SwinTransformer"}
"""Classes of torchvision, by the names of their files where these differ by more than capitals."""
TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
SHORT_SWIN = {"embed_dim": 24, "depths": [1, 1, 1], "num_heads": [2, 2, 4], "window_size": 4}


@dataclass(frozen=True)
class Built:
    """A network of the tables. what: how a study names it. build: makes it with fresh weights. side: of its images."""

    what: str
    build: Callable[[], nn.Module]
    side: int = SIDE


def from_torchvision(name: str, **settings: Any) -> Built:
    return Built(f"torchvision {name}", lambda: torchvision.load(name, num_classes=CLASSES, **settings))


def from_timm(name: str, side: int = SIDE, **settings: Any) -> Built:
    return Built(f"timm {name}", lambda: timm.load(name, num_classes=CLASSES, **settings), side)


def from_config(kind: str, **settings: Any) -> Built:
    """Return a network of transformers, which is saved and loaded as somebody's own folder is."""

    def build() -> nn.Module:
        made = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, image_size=SIDE, **settings)
        with tempfile.TemporaryDirectory() as folder:
            transformers.AutoModelForImageClassification.from_config(made).save_pretrained(folder)
            return huggingface.load(folder, mean=[0.5] * 3, std=[0.5] * 3)

    return Built(f"transformers {kind}", build)


def small(kind: str, make: Callable[..., nn.Module] | None = None, **settings: Any) -> Built:
    """Return a network of one of torchvision's classes, with fewer and narrower layers than those that have a name."""

    def build() -> nn.Module:
        file = importlib.import_module(f"torchvision.models.{kind.lower()}")
        made = (make or getattr(file, CLASSES_OF.get(kind, kind)))(num_classes=CLASSES, **settings)
        make_hookable(made)
        return normalised(made, normalisation(torchvision.IMAGENET_MEAN, torchvision.IMAGENET_STD))

    return Built(f"torchvision's class {CLASSES_OF.get(kind, kind)}, small", build)


def narrow_vgg(num_classes: int) -> nn.Module:
    """Return a VGG whose linear layers have 32 units: those of torchvision have 120 million weights."""
    network = VGG(make_layers([16, "M", 32, "M", 64, "M"]), num_classes)
    network.avgpool = nn.AdaptiveAvgPool2d(4)
    network.classifier[0], network.classifier[3] = nn.Linear(64 * 16, 32), nn.Linear(32, 32)
    network.classifier[6] = nn.Linear(32, num_classes)
    return network


CONVOLUTIONAL = {
    "thin ResNet": Built("resnet8 of efface", lambda: resnet.resnet8(num_classes=CLASSES), 32),
    "ResNet": from_torchvision("resnet18"),
    "VGG": small("VGG", narrow_vgg),
    "SqueezeNet": from_torchvision("squeezenet1_1"),
    "DenseNet": small("DenseNet", growth_rate=8, block_config=(2, 2, 2, 2), num_init_features=16),
    "MobileNetV2": from_torchvision("mobilenet_v2"),
    "MobileNetV3": from_torchvision("mobilenet_v3_small"),
    "EfficientNet": from_torchvision("efficientnet_b0"),
    "ConvNeXt": small("ConvNeXt", block_setting=[CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 1)]),
    "ConvNeXt (timm)": from_timm("convnext_atto"),
}
TRANSFORMERS = {
    "ViT": small(
        "Vision_Transformer", image_size=SIDE, patch_size=16, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128
    ),
    "ViT (timm)": from_timm("vit_tiny_patch16_224", img_size=SIDE, depth=3),
    "ViT (HF)": from_config("ViT", patch_size=16, **TINY),
    "DeiT (timm)": from_timm("deit_tiny_distilled_patch16_224", img_size=SIDE, depth=3),
    "DINOv2 (HF)": from_config("Dinov2", patch_size=8, mlp_ratio=2, **{k: v for k, v in TINY.items() if k[0] != "i"}),
    "EVA-02 (timm)": from_timm("eva02_tiny_patch14_224", 70, img_size=70, depth=3),
    "BEiT (timm)": from_timm("beit_base_patch16_224", img_size=SIDE, embed_dim=48, depth=3, num_heads=3),
    "Swin": small(
        "Swin_Transformer", patch_size=[4, 4], embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4]
    ),
    "Swin (timm)": from_timm(
        "swin_tiny_patch4_window7_224", img_size=SIDE, window_size=4, embed_dim=24, depths=(1, 1, 1, 1)
    ),
    "Swin (HF)": from_config("Swin", patch_size=4, **SHORT_SWIN),
    "MaxViT": small(  # the windows of maxvit_t, 7 x 7, need images of 224 x 224
        "MaxVit",
        input_size=(SIDE, SIDE),
        stem_channels=16,
        block_channels=[16, 32, 48, 64],
        block_layers=[1, 1, 1, 1],
        head_dim=16,
        partition_size=2,
        stochastic_depth_prob=0.0,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="", help="names of columns, with commas; without it all")
    parser.add_argument("--methods", default="", help="names of rows, with commas; without it all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    listed = entries(options.methods.split(",") if options.methods else [])
    tables = {"convolutional": CONVOLUTIONAL, "transformers": TRANSFORMERS}
    for part, every in tables.items():
        wanted = options.networks.split(",") if options.networks else [*every]
        chosen = {name: every[name] for name in wanted if name in every}
        if not chosen:
            continue
        text = f"{table(chosen, listed)}\n\n{origin()}"
        if options.networks or options.methods:
            print(text)
        else:
            fill(part, text, PAGE)


def origin() -> str:
    """Return the command, the versions and the date."""
    packages = {"torch": torch, "torchvision": torchvision_package, "timm": timm_package, "transformers": transformers}
    versions = ", ".join(f"{name} {package.__version__.partition('+')[0]}" for name, package in packages.items())
    return wrapped(f"`python scripts/describe_networks.py`; {versions}, {time.strftime('%Y-%m-%d')}.")


def entries(names: list[str]) -> list[MethodEntry | str]:
    """Return an entry for each method that is no control, by module; or the sentence why there is none.

    names: of the entries to return; empty: all.
    """
    found: list[MethodEntry | str] = []
    for word, path in sorted(words.index("method").items(), key=lambda each: each[1].lower()):
        if path.startswith(CONTROLS):
            continue
        for name, kwargs in SETTINGS.get(word, {word: {}}).items():
            if names and name not in names:
                continue
            call = Call(call=path, kwargs=dict(kwargs))
            if lacking := needed(call):
                found.append(f"`{name}` is not in the table: it needs {', '.join(lacking)}.")
            else:
                found.append(
                    MethodEntry(name=name, method=path, kwargs=few(call).kwargs, outputs=OUTPUTS.get(word, ()))
                )
    return found


def needed(call: Call) -> list[str]:
    """Return the settings of a method that have no default and no value."""
    known = inspect.signature(call.resolve()).parameters
    return [
        name
        for name, each in known.items()
        if each.kind is each.KEYWORD_ONLY and each.default is each.empty and name not in {*HANDED, *call.kwargs}
    ]


def few(call: Call) -> Call:
    """Return the call with fewer samples and steps, also in inner methods."""
    known = inspect.signature(call.resolve()).parameters
    kwargs = call.kwargs | {name: count for name, count in FEW.items() if name in known and name not in call.kwargs}
    kwargs |= {name: few(each).model_dump() for name, each in call.nested().items()}
    return call.model_copy(update={"kwargs": kwargs})


def table(networks: Mapping[str, Built], listed: list[MethodEntry | str]) -> str:
    """Return the table of methods by networks, with the reasons below it."""
    tried_entries = [each for each in listed if isinstance(each, MethodEntry)]
    found: dict[str, dict[str, str]] = {entry.name: {} for entry in tried_entries}
    for name, built in networks.items():
        started, network, learnt = time.perf_counter(), fresh(built), dict[str, dict[str, Tensor]]()
        for entry in tried_entries:
            found[entry.name][name] = tried(entry, network, built.side, learnt)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    everywhere = ", ".join(f"`{name}`" for name, line in found.items() if not any(line.values()))
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, line in found.items():
        if any(line.values()):
            alike.setdefault(tuple(line.values()), []).append(f"`{name}`")
    reasons = list(dict.fromkeys(why for line in alike for why in line if why))
    rows = [(", ".join(names), *(verdict(why, reasons) for why in line)) for line, names in alike.items()]
    notes = "\n".join(wrapped(f"{number}. {why}", "   ") for number, why in enumerate(reasons, 1))
    built = "; ".join(f"{name}: {each.what}, {each.side} x {each.side}" for name, each in networks.items())
    head = f"Work on all of these networks: {everywhere or 'none'}."
    missing = [each for each in listed if isinstance(each, str)]
    parts = [
        wrapped(" ".join([head, *missing])),
        markdown(("the others", *networks), rows) if rows else "",
        notes,
        wrapped(f"The networks, with the side of their images: {built}."),
    ]
    return "\n\n".join(each for each in parts if each)


def wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def verdict(why: str, reasons: list[str]) -> str:
    """Return the cell of a table: yes, or a word with the number of its reason."""
    if not why:
        return "yes"
    kind = next((each for each in ("FAILS", "differs") if why.startswith(f"{each}: ")), "no")
    return f"{kind} ({reasons.index(why) + 1})"


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


def tried(entry: MethodEntry, network: nn.Module, side: int, learnt: dict[str, dict[str, Tensor]]) -> str:
    """Return "" if there are maps; else why not, or how they differ. Unexplained errors begin with FAILS.

    learnt: tensors that methods learnt from this network, by the settings that they depend on.
    """
    made = MethodCall(entry.name, entry.call, entry.batched, entry.outputs)
    images = torch.rand(TAUGHT, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        targets = network(images).argmax(1)
    try:
        if hasattr(entry.call.resolve(), "fit"):
            key = json.dumps(made.method.learnt_from())
            if key not in learnt:
                made.method.fit(network, Split(images.mul(255).byte(), targets), seed=0, max_batch=TAUGHT)
                learnt[key] = made.method.learnt
            made.method.learnt = learnt[key]

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
    first = re.sub(r"returns shape \([\d, ]+\), its", "has its", first)
    return re.sub(r" \('[^']*'\)|, '[\w.]+'(?=$|\.)", "", first)


if __name__ == "__main__":
    main()
