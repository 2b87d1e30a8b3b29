"""Image classifiers of the transformers library, by their name on the hub or from a folder, for images in [0, 1].

The package transformers is the extra `huggingface`.
"""

import copy
import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from efface.models.around import normalised
from efface.models.loaded import state_class_names, state_image_size, state_new_layers
from efface.models.normalise import normalisation
from efface.models.processor import as_module, from_settings, stated_size

_PROCESSOR = "preprocessor_config.json"
_CONFIGS = ("config.json", "adapter_config.json")
_PREFIXES = ("_orig_mod.", "module.", "model.", "module._orig_mod.", "_orig_mod.module.")
"""What torch.compile, parallel training and Lightning put before the names of weights."""
_OF_FILES = ("revision", "token", "cache_dir", "subfolder", "local_files_only")
"""Settings of `from_pretrained` that say where files lie."""
_SHOWN = 4
_SIDES = (400, 500)
"""Sides in pixels of the pictures that tell whether a processor gives all images one size."""


def load(
    name: str,
    *,
    num_classes: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **kwargs: object,
) -> nn.Module:
    """An image classifier of transformers behind the normalisation of its processor, in evaluation mode.

    Its modules and its state dict keep their names. It returns the library's output object, of which efface takes
    `logits`. efface runs the processor on plain pictures, and puts one factor and one summand for each channel in front
    of the network, in the order of channels that the processor gives. The processor's size is not applied. Give the
    data that size; `check` and the page warn of another one. A processor that does something else to colours is
    refused.

    name: name on the hub, such as `google/vit-base-patch16-224`, which is downloaded once into the hub's own cache, or
        a folder that `save_pretrained` wrote.
    num_classes: number of classes; None: that of the weights. With another number, the last layer gets new random
        weights.
    mean: one number for each channel, for images in [0, 1]; None: that of the processor. With given means, the
        processor is not read, and channels keep the order red, green, blue.
    std: one number above 0 for each channel; None: as `mean`.
    kwargs: settings of `from_pretrained`, such as `revision`. Weights are float32 unless `dtype` says otherwise.

    Source: Wolf et al. 2020, Transformers: state-of-the-art natural language processing.
    """
    transformers = _package()
    _refuse_no_model(name, kwargs)
    network, said = _network(transformers, name, num_classes, kwargs)
    if lacking := _lacking(said):
        _refuse_random(name, network, lacking, num_classes, said["unexpected_keys"])
        state_new_layers(network, lacking)
    else:
        state_class_names(network, _names(network))
    channels = _channels(network)
    if mean is not None or std is not None:
        return normalised(network.eval(), normalisation(mean, std, channels))
    layer, size = _of_processor(transformers, name, kwargs, channels)
    if size is not None:
        state_image_size(network, size)
    return normalised(network.eval(), layer)


def _network(transformers: Any, name: str, num_classes: int | None, kwargs: dict[str, object]) -> tuple[Any, Any]:
    """Return the network, and which weights its file lacks, a prefix of all names taken away."""
    changed = {} if num_classes is None else {"num_labels": num_classes, "ignore_mismatched_sizes": True}
    given = {"dtype": torch.float32, **changed, **kwargs}
    made = functools.partial(
        transformers.AutoModelForImageClassification.from_pretrained, name, output_loading_info=True, **given
    )
    try:
        network, said = made()
        lacking, extra = _lacking(said), set(said["unexpected_keys"])
        prefixes = [prefix for prefix in _PREFIXES if lacking and all(prefix + key in extra for key in lacking)]
        if prefixes:
            network, said = made(key_mapping={f"^{re.escape(prefixes[0])}": ""})
    except (OSError, ValueError, RuntimeError) as problem:
        raise ValueError(
            f"transformers has no image classifier {name!r} ({str(problem).splitlines()[0]}); give a name on the hub, "
            "or a folder that save_pretrained wrote"
        ) from problem
    return network, said


def _lacking(said: Any) -> list[str]:
    return sorted(map(_key, [*said["missing_keys"], *said["mismatched_keys"]]))


def _refuse_random(name: str, network: nn.Module, lacking: list[str], classes: int | None, extra: Any) -> None:
    """Raise ValueError for weights that would be random, unless they are a last layer that was asked for."""
    last = _of_classes(network)
    others = [key for key in lacking if key not in last]
    if classes is not None and not others:
        return
    listed = ", ".join((others if classes is not None else lacking)[:_SHOWN])
    if classes is None and not others:
        remedy = "take a model that was trained as an image classifier, or give num_classes to train a new last layer"
    else:
        remedy = "take a model whose file has the names of this network"
        if extra:
            remedy += f"; the file has {min(map(str, extra))} and others that the network does not have"
    raise ValueError(f"{name}: the weights lack {listed}, which would be random; {remedy}")


def _of_classes(network: Any) -> set[str]:
    """Return the names of the tensors whose shape depends on the number of classes, and of those beside them."""
    settings = copy.deepcopy(network.config)
    settings.num_labels += 1
    with torch.device("meta"):
        other = type(network)(settings).state_dict()
    own = network.state_dict()
    heads = {_part(network, key) for key, value in own.items() if key not in other or other[key].shape != value.shape}
    return {key for key in own if _part(network, key) in heads}


def _part(network: nn.Module, key: str) -> str:
    """Return the name of a tensor's module, or of the part of the network around it if that has single layers alone."""
    first = key.partition(".")[0]
    around = getattr(network, first)
    of_layers = isinstance(around, nn.Module) and all(not [*layer.children()] for layer in around.children())
    return first if of_layers else key.rpartition(".")[0]


def _names(network: Any) -> list[str]:
    """Return what the configuration calls the classes; none if it has the library's own names alone."""
    names = [str(network.config.id2label[number]) for number in sorted(network.config.id2label)]
    return [] if all(re.fullmatch(r"LABEL_\d+", name) for name in names) else names


def _package() -> Any:
    try:
        import transformers
    except ImportError as problem:
        raise ValueError(
            "efface.models.huggingface needs transformers, which is not installed; run: "
            "pip install 'efface[huggingface]'"
        ) from problem
    return transformers


def _refuse_no_model(name: str, kwargs: dict[str, object]) -> None:
    """Raise ValueError if the name is a path and no model lies there."""
    folder = Path(name).expanduser()
    if folder.is_file():
        raise ValueError(f"{name} is a file; give the folder that save_pretrained wrote, here {folder.parent}")
    if folder.is_dir():
        inside = folder / str(kwargs.get("subfolder") or "")
        if not any((inside / config).is_file() for config in _CONFIGS):
            raise ValueError(f"the folder {inside} has no {_CONFIGS[0]}; give a folder that save_pretrained wrote")
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ValueError(f"there is no folder {name}; give a folder that save_pretrained wrote, or a name on the hub")


def _of_processor(
    transformers: Any, name: str, kwargs: dict[str, object], channels: int
) -> tuple[nn.Module, Sequence[int] | None]:
    """Return the module that does to images in [0, 1] what the model's own processor does to bytes, and its size."""
    kept = {key: value for key, value in kwargs.items() if key in _OF_FILES}
    trusted = bool(kwargs.get("trust_remote_code", False))
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=trusted, **kept)
        _processed(processor, torch.zeros(channels, 32, 32, dtype=torch.uint8))
    except Exception as problem:  # noqa: BLE001  a processor is anybody's code, and may need packages that are not here
        return _of_settings(name, str(kwargs.get("subfolder") or ""), channels, problem)
    try:
        layer = as_module(lambda picture: _processed(processor, picture), processor.to_dict(), channels)
    except ValueError as problem:
        raise ValueError(
            f"{name}: its image processor, {type(processor).__name__}, {problem}; give mean and std, or a model whose "
            "processor normalises each channel"
        ) from problem
    return layer, _size_of(processor, channels)


def _size_of(processor: Any, channels: int) -> tuple[int, int] | None:
    """Return the height and width of what the processor makes of any square picture; None if it depends on it."""
    pictures = (torch.zeros(channels, side, side, dtype=torch.uint8) for side in _SIDES)
    small, large = (_processed(processor, picture, resize=True).shape for picture in pictures)
    return (small[1], small[2]) if small == large else None


def _processed(processor: Any, picture: Tensor, *, resize: bool = False) -> Tensor:
    """Return what the processor makes of a picture of bytes, c h w, without resizing and cropping where it can."""
    keys = ("do_convert_rgb", *(() if resize else ("do_resize", "do_center_crop", "do_pad")))
    stays = {key: False for key in keys if hasattr(processor, key)}
    made = processor(picture.numpy(), return_tensors="pt", input_data_format="channels_first", **stays)
    tensor: Tensor = made["pixel_values"][0]
    if tensor.ndim != 3:
        raise ValueError(f"its processor gives an image of shape {tuple(tensor.shape)}; expected three axes")
    return tensor.float()


def _of_settings(name: str, subfolder: str, channels: int, why: Exception) -> tuple[nn.Module, Sequence[int] | None]:
    """Return the normalisation that the file of the processor states, and its size. ValueError: it states none."""
    folder = Path(name).expanduser() / subfolder
    try:
        settings = _settings(folder)
    except (OSError, ValueError, AttributeError) as problem:
        reason = why if not (folder / _PROCESSOR).is_file() else problem
        raise ValueError(
            f"{name}: no settings of its image processor ({_PROCESSOR}) can be read ({_first_line(reason)}); "
            "give mean and std"
        ) from problem
    try:
        return from_settings(settings, channels), stated_size(settings)
    except ValueError as problem:
        raise ValueError(f"{name}: its image processor {problem} ({_first_line(why)}); give mean and std") from problem


def _settings(folder: Path) -> dict[str, Any]:
    """Return the settings of a folder's image processor, which newer folders keep in the file of all processors."""
    if (folder / _PROCESSOR).is_file():
        found = json.loads((folder / _PROCESSOR).read_text())
    else:
        found = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}")
    return found


def _first_line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]


def _channels(network: nn.Module) -> int:
    """Return the number of channels of the images."""
    found = getattr(getattr(network, "config", None), "num_channels", 3)
    return found if isinstance(found, int) else 3


def _key(key: Any) -> str:
    return str(key[0] if isinstance(key, tuple | list) else key)
