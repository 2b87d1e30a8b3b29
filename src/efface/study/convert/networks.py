"""Data and networks of an old configuration."""

import os.path
from typing import Any

from efface.study.convert.old import LERF, ROAR, Old

CIFAR = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2470, 0.2435, 0.2616]}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
"""The colours by which the reference system normalises. Its mean colour is also the fill of removed pixels."""
RESNETS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet8": ("resnet8_wide", {}),
    "ResNet8v2": (
        "resnet",
        {"blocks": [1, 1, 1], "widths": [64, 128, 256], "strides": [1, 1, 2], "activation": "relu"},
    ),
    "ResNet10": ("resnet", {"blocks": [1, 1, 1, 1], "activation": "relu"}),
    "ResNet18": ("resnet18", {"activation": "relu"}),
    "ResNet34": ("resnet34", {"activation": "relu"}),
    "ResNet50": ("resnet50", {"activation": "relu"}),
    "ResNet101": ("resnet", {"blocks": [3, 4, 23, 3], "bottleneck": True, "activation": "relu"}),
    "ResNet152": ("resnet", {"blocks": [3, 8, 36, 3], "bottleneck": True, "activation": "relu"}),
}
"""Networks of the reference system: the word here, and its settings."""
TREES = ("ImageNet", "Food101", "Birdsnap")
"""Data sets that are folders of photographs."""
_IMAGES = {"CIFAR10": 10_000, "ImageNet": 50_000}
"""Test images of a data set."""


def data_of(old: Old) -> dict[str, Any]:
    """Return the key `data`."""
    name = old.get("data.dataset")
    folder = str(old.text("data.dataset_dir", "the folder of the data")).rstrip("/") or "."
    kwargs: dict[str, Any] = {"root": folder}
    if name == "CIFAR10":
        old.became("data.dataset", "data.call: cifar10")
        old.became("data.dataset_dir", f"data.kwargs.root: {folder}")
        call = "cifar10"
    elif name in TREES:
        call = "image_folder"
        kwargs |= {"size": 224, "resize": 256}
        if LERF in old.tree:
            kwargs["root"] = f"{folder}/val"
        none = "" if name == "ImageNet" else "The reference system accepts this name but cannot load the data. "
        split = (
            "val, with a folder for each class"
            if LERF in old.tree
            else "train and val, each with a folder for each class"
        )
        old.became(
            "data.dataset", "data.call: image_folder, size 224, resize 256", f"{none}It reads the folder {split}."
        )
        old.became("data.dataset_dir", f"data.kwargs.root: {kwargs['root']}")
    else:
        old.wrong("data.dataset", f"CIFAR10, {', '.join(TREES)}")
        call = "cifar10"
    kwargs |= _validation(old) | _limit(old, name)
    return {"call": call, "kwargs": kwargs}


def _validation(old: Old) -> dict[str, Any]:
    if not old.has("data.split_ratio"):
        return {}
    ratio = old.get("data.split_ratio")
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 1:
        old.wrong("data.split_ratio", "a share above 0 and up to 1, such as 0.875")
        return {}
    if LERF in old.tree and not any(name in old.tree for name in ROAR):
        old.nothing("data.split_ratio", "only test images are used")
        return {}
    held_out = round(1 - ratio, 10)
    why = "Rows are drawn by seed in each class; theirs are the last rows of each class in the file."
    old.became("data.split_ratio", f"data.kwargs.validation: {held_out}", why)
    return {"validation": held_out}


def _limit(old: Old, name: Any) -> dict[str, Any]:
    key = f"{LERF}.test_samples"
    if not old.has(key):
        return {}
    count = old.number(key)
    if count is None:
        return {}
    if count >= _IMAGES.get(str(name), count + 1):
        old.nothing(key, f"{name} has no more test images, so all are taken")
        return {}
    old.became(key, f"data.kwargs.test_limit: {count}", "A seed draws the same number of images of each class.")
    return {"test_limit": count}


def network_of(old: Old, sections: list[str]) -> dict[str, Any]:
    """Return the keys `model` and `weights`, and `mean` and `std` of a network of one's own code.

    sections: those with a network. The first one names it; the others are compared with it.
    """
    if not sections:
        return {}
    first = f"{sections[0]}.model"
    arch = old.text(f"{first}.arch", "the dotted path of a network")
    colours = CIFAR if old.get("data.dataset") == "CIFAR10" else IMAGENET
    settings = old.mapping(f"{first}.constructor_args")
    path, _, name = arch.rpartition(".")
    keys: dict[str, Any]
    if arch.startswith("torchvision.models."):
        keys = {"model": _torchvision(old, first, name, settings, colours)}
    elif name in RESNETS and (not path or path.startswith("src.")):
        word, own = RESNETS[name]
        keys = {"model": {"call": word, "kwargs": {"num_classes": 10, **own, **colours, **settings}}}
        old.became(f"{first}.arch", f"model: {word}", "Its first layer normalises as the reference system does.")
        _arguments(old, first, settings)
    else:
        keys = {"model": {"call": arch, "kwargs": settings}, **colours}
        why = (
            "Your own code: Python must find it where you run efface, so run efface in the old folder or set "
            "PYTHONPATH. Images arrive normalised by mean and std, as there."
        )
        old.became(f"{first}.arch", f"model.call: {arch}", why)
        _arguments(old, first, settings)
    for section in sections:
        _transformer(old, f"{section}.model")
    for section in sections[1:]:
        _same(old, f"{section}.model", first)
    return keys | _weights(old, sections)


def _torchvision(old: Old, where: str, name: str, settings: dict[str, Any], colours: dict[str, Any]) -> dict[str, Any]:
    given = settings.pop("pretrained", None)
    weights = settings.pop("weights", "IMAGENET1K_V1" if given is True else None)
    weights = weights.rpartition(".")[2] if isinstance(weights, str) else weights
    kwargs = {"name": name, **({"weights": weights} if weights else {}), **settings}
    if colours is not IMAGENET:
        kwargs |= colours
    old.became(f"{where}.arch", f"model: torchvision, name {name}", "Its first layer normalises.")
    key = f"{where}.constructor_args"
    if old.get(key):
        said = ", ".join([f"weights {weights}"] * bool(weights) + list(settings)) or "no weights"
        why = "These are the weights of 'pretrained: True'." if given is True else ""
        old.became(key, f"model.kwargs: {said}", why)
    else:
        old.nothing(key)
    return {"call": "torchvision", "kwargs": kwargs}


def _arguments(old: Old, where: str, settings: dict[str, Any]) -> None:
    key = f"{where}.constructor_args"
    if settings:
        old.became(key, f"model.kwargs: {', '.join(settings)}")
    else:
        old.nothing(key)


def _transformer(old: Old, where: str) -> None:
    key = f"{where}.transformer"
    if old.get(key) is None:
        old.nothing(key)
    else:
        old.nothing(
            key,
            "the reference system reads another key here and never calls it; set the network's classes in model.kwargs",
        )


def _same(old: Old, where: str, first: str) -> None:
    """Note what a further section says of its network, which a study names once."""
    for key in ("arch", "constructor_args"):
        if old.get(f"{where}.{key}") is None and old.get(f"{first}.{key}") is None:
            old.nothing(f"{where}.{key}")
        elif old.get(f"{where}.{key}") == old.get(f"{first}.{key}"):
            old.became(f"{where}.{key}", "model", f"It is that of {first}; a study names its network once.", again=True)
        else:
            why = (
                f"differs from {first}.{key}: efface trains again the network that it explains, so this one is not used"
            )
            old.nothing(f"{where}.{key}", why)


def _weights(old: Old, sections: list[str]) -> dict[str, Any]:
    """Return the key `weights`: the file of the network that is explained, if the study does not train it."""
    found: dict[str, Any] = {}
    for section in sections:
        key = f"{section}.model.pretrained_weights"
        value = old.get(key)
        if value is None:
            old.nothing(key)
        elif not isinstance(value, str):
            old.wrong(key, "a path")
        elif section == "retrain_cls":
            old.nothing(
                key, "a retraining starts from new random weights; the reference system stops with an error here"
            )
        elif section == "train_cls":
            old.nothing(key, "a training here starts from new random weights")
        elif section == "extract_cams" and "train_cls" in sections and _own_weights(old, value):
            old.became(
                key,
                "model",
                "It is the network that this study trains: models/network.pt in the run's folder.",
                again=True,
            )
        else:
            old.became(key, f"weights: {value}", "The network is read from this file and not trained.")
            found = {"weights": value}
    return found


def _own_weights(old: Old, path: str) -> bool:
    """Return whether a path is that of the best network of `train_cls`."""
    outdir = str(old.get("outdir") or "")
    return os.path.normpath(path) == os.path.normpath(f"{outdir}/train_cls/best_model.pth")


def fill_of(old: Old) -> Any:
    """Return the fill of removed pixels: the means of the data's channels, or for LeRF the colour that becomes 0."""
    if LERF not in old.tree:
        return "channel_mean"
    colour = CIFAR if old.get("data.dataset") == "CIFAR10" else IMAGENET
    return {"call": "constant", "kwargs": {"value": colour["mean"]}}
