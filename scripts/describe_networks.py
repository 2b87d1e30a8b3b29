"""Writes the tables of docs/choosing.md: which attribution methods work on which networks. Nothing is downloaded.

    python scripts/describe_networks.py [--networks ViT,Swin] [--methods grad_cam,rise]

It tries every method that has a short word, on small networks with fresh weights and small images of noise. A method
that learns from training images learns from a few of them. It took 15 minutes beside other work (862 s, AMD EPYC,
2026-11-30). With one of the options, the table of that part is only printed, and the page stays as it is.
"""

import argparse
import tempfile
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm as timm_package
import torch
import torchvision as torchvision_package
import transformers
from describe_methods import fill, markdown
from torch import Tensor, nn
from torchvision.models.vgg import VGG, make_layers

from efface.methods.calling import MethodCall
from efface.models import huggingface, timm, torchvision
from efface.plug import words
from efface.plug.call import Call
from efface.stages.trial import networks as small_networks
from efface.stages.trial.networks import CLASSES, RESNET, SIDE, SWIN, VIT, Built, few, fresh, needed, small
from efface.study.schema import MethodEntry

PAGE = Path(__file__).parents[1] / "docs" / "choosing.md"
CONTROLS = "efface.methods.control."
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
TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
SHORT_SWIN = {"embed_dim": 24, "depths": [1, 1, 1], "num_heads": [2, 2, 4], "window_size": 4}


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


def narrow_vgg(num_classes: int) -> nn.Module:
    """Return a VGG whose linear layers have 32 units: those of torchvision have 120 million weights."""
    network = VGG(make_layers([16, "M", 32, "M", 64, "M"]), num_classes)
    network.avgpool = nn.AdaptiveAvgPool2d(4)
    network.classifier[0], network.classifier[3] = nn.Linear(64 * 16, 32), nn.Linear(32, 32)
    network.classifier[6] = nn.Linear(32, num_classes)
    return network


CONVOLUTIONAL = {
    "thin ResNet": RESNET,
    "ResNet": from_torchvision("resnet18"),
    "VGG": small("VGG", narrow_vgg),
    "SqueezeNet": from_torchvision("squeezenet1_1"),
    "DenseNet": small("DenseNet", growth_rate=8, block_config=(2, 2, 2, 2), num_init_features=16),
    "MobileNetV2": from_torchvision("mobilenet_v2"),
    "MobileNetV3": from_torchvision("mobilenet_v3_small"),
    "EfficientNet": from_torchvision("efficientnet_b0"),
    "ConvNeXt": small_networks.small_convnext(),
    "ConvNeXt (timm)": from_timm("convnext_atto"),
}
TRANSFORMERS = {
    "ViT": VIT,
    "ViT (timm)": from_timm("vit_tiny_patch16_224", img_size=SIDE, depth=3),
    "ViT (HF)": from_config("ViT", patch_size=16, **TINY),
    "DeiT (timm)": from_timm("deit_tiny_distilled_patch16_224", img_size=SIDE, depth=3),
    "DINOv2 (HF)": from_config("Dinov2", patch_size=8, mlp_ratio=2, **{k: v for k, v in TINY.items() if k[0] != "i"}),
    "EVA-02 (timm)": from_timm("eva02_tiny_patch14_224", 70, img_size=70, depth=3),
    "BEiT (timm)": from_timm("beit_base_patch16_224", img_size=SIDE, embed_dim=48, depth=3, num_heads=3),
    "Swin": SWIN,
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


def tried(entry: MethodEntry, network: nn.Module, side: int, learnt: dict[str, dict[str, Tensor]]) -> str:
    """Return "" if there are maps; else why not, or how they differ. Unexplained errors begin with FAILS.

    learnt: tensors that methods learnt from this network, by the settings that they depend on.
    """
    made = MethodCall(entry.name, entry.call, entry.batched, entry.outputs)
    return small_networks.tried(made, network, side, learnt)


if __name__ == "__main__":
    main()
