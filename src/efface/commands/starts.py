"""Data and network of a new study: from the words of `efface new` to what the study says of them."""

import inspect
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from efface.models.timm import input_side as timm_side
from efface.models.torchvision import input_side as torchvision_side
from efface.plug import words
from efface.plug.call import Call, resolve

PHOTOGRAPH, SMALL = 224, 32  # sides of images: of most networks of photographs, and of efface's own networks
FEW_IMAGES, SOME_IMAGES = 200, 500  # test images that are explained: of a large network, and of a small one
_DOWNLOADED = {
    "cifar10": (10, (3, 32, 32), 10_000),
    "cifar100": (100, (3, 32, 32), 10_000),
    "mnist": (10, (1, 28, 28), 10_000),
    "fashion_mnist": (10, (1, 28, 28), 10_000),
    "svhn": (10, (3, 32, 32), 26_032),
    "imagenet10": (10, (3, 112, 112), 3_000),
}
"""Classes, shape and test images of the data that are not looked at, because they would be downloaded."""
_NEEDED = {"blocks": [1, 1, 1, 1], "plan": [64, "M", 128, "M"]}
"""Values of the settings that a network of any shape needs."""
_ELSEWHERE = ("timm", "torchvision", "huggingface")
_YOURS = "<- "


@dataclass(frozen=True)
class Start:
    """Data or a network of a new study.

    word: its word, or your own dotted path. kwargs: its settings. notes: a comment for a setting, by its name.
    classes: number of classes; None: not known. shape: c h w of an image. tests: number of test images; None: not
    known. side: side of the images that a network from elsewhere takes; None: any.
    """

    word: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    classes: int | None = None
    shape: tuple[int, int, int] | None = None
    tests: int | None = None
    side: int | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Return whether it is a network of another package, which may bring its weights."""
        return self.word in _ELSEWHERE

    def tree(self) -> Any:
        """Return it as a study writes it."""
        return {"call": self.word, "kwargs": self.kwargs} if self.kwargs else self.word


def data_start(asked: str) -> Start:
    """Return the data of words such as `folder:my_pictures`, `cifar10` or `huggingface:NAME`.

    ValueError: there are no such data, or they cannot be used.
    """
    word, _, value = asked.partition(":")
    if word in ("folder", "image_folder"):
        return _folder(value)
    if word == "huggingface":
        if not value:
            raise ValueError("--data huggingface: the name is missing; give it as in huggingface:uoft-cs/cifar100")
        kwargs = {"name": value, "size": PHOTOGRAPH}
        return Start(
            word, kwargs, {"name": "on the hub of Hugging Face, or a folder"}, shape=(3, PHOTOGRAPH, PHOTOGRAPH)
        )
    path = _path("data", "--data", word)
    kwargs = {"root": value} if value else {}
    if word in _DOWNLOADED:
        classes, shape, tests = _DOWNLOADED[word]
        root = {"root": value or "data"}
        return Start(word, root, {"root": "downloaded once into this folder"}, classes, shape, tests)
    splits = Call(call=path, kwargs=kwargs)()
    test = splits["test"]
    return Start(word, kwargs, {}, int(test.targets.max()) + 1, tuple(test.shape), len(test))


def _folder(value: str) -> Start:
    """Return the data of a folder of pictures, `root/train/CLASS/*` and `root/val/CLASS/*`."""
    from efface.data.tree import class_folders, split_folders

    if not value:
        raise ValueError("--data folder: the path is missing; give it as in folder:my_pictures")
    root = Path(value)
    kwargs: dict[str, Any] = {"root": value, "size": PHOTOGRAPH, "resize": 256}
    notes = {"size": "the side that the network takes", "resize": "the shorter side before the crop"}
    found = Start("image_folder", kwargs, notes, shape=(3, PHOTOGRAPH, PHOTOGRAPH))
    if not root.is_dir():
        yours = {"root": f"{_YOURS}there is no such folder yet; it needs train/CLASS/* and val/CLASS/*"}
        return replace(found, notes=yours | notes)
    folders, _ = split_folders(root, None, None)
    test = root / folders["test"]
    tests = sum(len(files) for _, _, files in os.walk(test))
    return replace(found, classes=len(class_folders(test)), tests=tests)


def model_start(asked: str, data: Start) -> Start:
    """Return the network of words such as `timm:vit_tiny_patch16_224` or `resnet8`, for these data.

    ValueError: there is no such network, or it does not take such images.
    """
    word, _, value = asked.partition(":")
    path = _path("model", "--model", word)
    if word in _ELSEWHERE and not value:
        raise ValueError(f"--model {word}: the name is missing; give it as in {word}:NAME")
    known = inspect.signature(resolve(path)).parameters
    kwargs: dict[str, Any] = {"name": value} if word in _ELSEWHERE else {}
    kwargs |= {name: setting for name, setting in _NEEDED.items() if name in known}
    notes: dict[str, str] = {}
    if word in ("timm", "torchvision"):
        kwargs["weights"] = "pretrained" if word == "timm" else "DEFAULT"
        notes["weights"] = "downloaded once; or your own file, such as my_net.pt"
    if "num_classes" in known:
        kwargs["num_classes"] = data.classes or 2
        if data.classes is None:
            notes["num_classes"] = f"{_YOURS}how many classes your data have"
    side = {"timm": timm_side, "torchvision": torchvision_side}.get(word, _side_of_folder)(value) if value else None
    return Start(word, kwargs | _of_shape(word, data, known), notes, side=side)


def _of_shape(word: str, data: Start, known: Any) -> dict[str, Any]:
    """Return the settings of a network for the shape of the images."""
    if data.shape is None:
        return {}
    c, h, w = data.shape
    found: dict[str, Any] = {}
    if "in_channels" in known and known["in_channels"].default != c:
        found["in_channels"] = c
    if "in_features" in known:
        found["in_features"] = c * h * w
    if word == "mnist_cnn" and h == w and known["size"].default != h:
        found["size"] = h
    if word == "timm" and c != 3:
        found |= {"in_chans": c, "mean": [0.0] * c, "std": [1.0] * c}  # its own have three channels
    if word in ("torchvision", "huggingface") and c != 3:
        raise ValueError(f"--model {word}: takes images of 3 channels, but those of {data.word} have {c}; take resnet8")
    return found


def framed(data: Start, model: Start) -> Start:
    """Return the data with images of the size that the network takes, and with fewer test images for a large one."""
    known = inspect.signature(resolve(_path("data", "--data", data.word))).parameters
    kwargs, shape = dict(data.kwargs), data.shape
    if "size" in known and shape is not None and data.word != "patches":
        side = model.side or (SMALL if shape[1] == PHOTOGRAPH and not model.is_elsewhere else shape[1])
        if side != shape[1] or "size" in kwargs:
            kwargs["size"], shape = side, (shape[0], side, side)
        if "resize" in kwargs or "resize" in known:
            kwargs["resize"] = round(side * 8 / 7)
        if model.is_elsewhere and "interpolation" in known:
            kwargs["interpolation"] = "bicubic"
    most = FEW_IMAGES if model.is_elsewhere else SOME_IMAGES
    notes = dict(data.notes)
    if "test_limit" in known and data.tests is not None and data.tests > most:
        kwargs["test_limit"] = most
        notes["test_limit"] = f"of {data.tests:,} test images; more of them show smaller differences"
    return replace(data, kwargs=kwargs, shape=shape, notes=notes)


def built(model: Start, data: Start) -> nn.Module | None:
    """Return the network with fresh weights, after a pass of one grey image; None if it would be downloaded.

    ValueError: it does not take such images.
    """
    if data.shape is None or (model.word == "huggingface" and not Path(model.kwargs["name"]).is_dir()):
        return None
    kwargs = {name: value for name, value in model.kwargs.items() if name != "weights"}
    network = Call(call=_path("model", "--model", model.word), kwargs=kwargs)()
    assert isinstance(network, nn.Module)
    try:
        with torch.no_grad():
            network.eval()(torch.full((1, *data.shape), 0.5))
    except Exception as error:
        c, h, w = data.shape
        raise ValueError(
            f"--model {model.word}: does not take the images of {data.word}, {c} x {h} x {w}: "
            f"{' '.join(str(error).split())[:200].rstrip('.')}; take another network"
        ) from error
    return network


def _side_of_folder(name: str) -> int | None:
    """Return the side of the images of a network that was saved by transformers; None: it is not in a folder."""
    import json

    file = Path(name) / "config.json"
    size = json.loads(file.read_text()).get("image_size") if file.is_file() else PHOTOGRAPH
    return size[0] if isinstance(size, list) else size


def _path(kind: str, option: str, word: str) -> str:
    """Return the path of a word. ValueError: there is none; the message names the option."""
    try:
        return words.expand(kind, word)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None
