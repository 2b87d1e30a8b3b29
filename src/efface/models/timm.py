"""timm's image classifiers, by name, for images in [0, 1]. The package timm is the extra `timm`."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from efface.base.shown import shown
from efface.models.around import normalised
from efface.models.hookable import make_hookable
from efface.models.loaded import state_class_names, state_image_size, state_new_layers
from efface.models.normalise import normalisation
from efface.models.weights import behind_prefix, load_weights, read_weights, weights_file

PRETRAINED = "pretrained"

_FILTERS = ("checkpoint_filter_fn", "_filter_fn")
"""Names in timm's modules of the function that turns a file's names of tensors into timm's."""


def load(
    name: str,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **kwargs: object,
) -> nn.Module:
    """A timm network behind its normalisation. Its modules and its state dict keep timm's names.

    It has no in-place operations, so that hooks see what each module computed.

    name: timm's name of the network, such as `vit_small_patch16_224`, with a tag of its weights if there are several
        (`vit_small_patch16_224.augreg_in1k`), or `hf_hub:USER/NAME`, or `local-dir:FOLDER`.
    weights: `pretrained` (downloaded once into the hub's own cache), or a file of a state dict (.pt, .pth or
        .safetensors; `FILE#ENTRY` for one entry of a checkpoint); None: new random weights. Older names of tensors, and
        those of a network's authors, become timm's where timm itself has a function for it.
    num_classes: number of classes; None: that of the weights, else timm's own. With another number than that of the
        weights, the last layer gets new random weights, which have to be trained.
    mean: one number for each channel, for images in [0, 1]; None: that of timm's configuration of the model.
    std: one number above 0 for each channel; None: as `mean`.
    kwargs: settings of `timm.create_model`, such as `img_size` or `drop_path_rate`.

    Source: Wightman 2019, PyTorch Image Models.
    """
    timm = _package()
    _refuse_unknown(timm, name)
    state = None if weights in (None, PRETRAINED) else _state(name, Path(str(weights)))
    settings: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if state is not None and num_classes is None and (classes := _classes(timm, name, kwargs, state)) is not None:
        settings["num_classes"] = classes
    network = _built(timm, name, pretrained=weights == PRETRAINED, **settings, **kwargs)
    if state is not None:
        found = None if num_classes is None else _classes(timm, name, kwargs, state)
        new = () if found in (None, num_classes) else _heads(network.pretrained_cfg.get("classifier"))  # type: ignore[union-attr, operator]
        _load(network, state, str(weights), new)
    known: Any = network.pretrained_cfg
    if weights == PRETRAINED:
        state_image_size(network, known["input_size"][1:])
        if num_classes not in (None, known.get("num_classes")):
            state_new_layers(network, [f"{each}.weight" for each in _heads(known.get("classifier"))])
        else:
            state_class_names(network, known.get("label_names") or ())
    make_hookable(network)
    return normalised(network, normalisation(*_means(name, known, mean, std), channels=_channels(known, kwargs)))


def _package() -> Any:
    try:
        import timm
    except ImportError as problem:
        raise ValueError(
            "efface.models.timm needs timm, which is not installed; run: pip install 'efface[timm]'"
        ) from problem
    return timm


def _state(name: str, path: Path) -> dict[str, Tensor]:
    if not weights_file(path).is_file():
        raise FileNotFoundError(
            f"weights: there is no file {path} for timm's {name}; give a file of a state dict, or '{PRETRAINED}'"
        )
    return read_weights(path)


def _load(network: nn.Module, state: dict[str, Tensor], source: str, new: Sequence[str]) -> None:
    """Load a file's tensors into the network. ValueError: they do not fit; it says which setting would help.

    new: last layers that keep their own random weights, because the file's have another number of classes.
    """
    own = network.state_dict()
    given = _by_timms_names(network, state, source)
    kept = [key for key in own if key.startswith(tuple(f"{name}." for name in new)) and key in given]
    try:
        load_weights(network, given | {key: own[key] for key in kept}, source)
        state_new_layers(network, kept)
    except ValueError as problem:
        differing = [key for key in own if key in state and own[key].shape != state[key].shape]
        if not differing or not all(map(_is_of_positions, differing)):
            raise
        raise ValueError(
            f"{problem}; the file is that of a network for images of another size: give their size as img_size, or "
            "drop img_size and set dynamic_img_size: true, if the network has this setting"
        ) from problem


def _by_timms_names(network: nn.Module, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the tensors by the names of the network, as timm itself renames them; as they are if all names fit.

    What timm would resize, such as the embedding of positions, keeps its size.
    """
    state, own = behind_prefix(network, state, source), network.state_dict()
    rename = next((found for each in _FILTERS if (found := getattr(_module(network), each, None))), None)
    if rename is None or set(state) == set(own):
        return state
    try:
        made = rename(dict(state), network)
    except Exception:  # noqa: BLE001  timm's functions fail in their own ways on tensors that are of another network
        return state
    fits = isinstance(made, dict) and len(set(made) ^ set(own)) < len(set(state) ^ set(own))
    if not fits:
        return state
    return {
        key: state[key] if _is_of_positions(key) and key in state and state[key].numel() != value.numel() else value
        for key, value in made.items()
    }


def _is_of_positions(key: str) -> bool:
    return "pos_embed" in key or "position" in key


def _module(network: nn.Module) -> Any:
    return sys.modules.get(type(network).__module__)


def _is_elsewhere(name: str) -> bool:
    """Return whether a name is that of a network of the hub or of a folder, of which timm's own list has none."""
    return ":" in name


def _built(timm: Any, name: str, *, pretrained: bool, **settings: Any) -> nn.Module:
    try:
        network: nn.Module = timm.create_model(name, pretrained=pretrained, **settings)
    except TypeError as problem:
        raise ValueError(f"timm's {name}: {problem}") from problem
    except (OSError, RuntimeError, ValueError) as problem:
        if not pretrained:
            remedy = "; give the file as 'weights' instead of checkpoint_path" if "checkpoint_path" in settings else ""
            raise ValueError(f"timm's {name}: {problem}{remedy}") from problem
        raise FileNotFoundError(
            f"timm's weights of {name} could not be loaded ({str(problem).splitlines()[0]}); download them on another "
            "machine, and give the file as 'weights'"
        ) from problem
    return network


def _classes(timm: Any, name: str, kwargs: dict[str, object], state: dict[str, Tensor]) -> int | None:
    """Return the number of classes of a file: the rows of the weight of the last layer; None if it has none."""
    known: Any = None if _is_elsewhere(name) else timm.get_pretrained_cfg(name)
    if known is None:  # a network of the hub says it only once it is built
        last = _built(timm, name, pretrained=False, **kwargs).pretrained_cfg.get("classifier")  # type: ignore[union-attr, operator]
    else:
        last = known.classifier
    for name_of in (f"{each}{part}.weight" for each in _heads(last) for part in ("", ".linear", ".l")):
        found = next((value for key, value in state.items() if key == name_of or key.endswith(f".{name_of}")), None)
        if found is not None:
            return len(found)
    return None


def _heads(classifier: Any) -> tuple[str, ...]:
    """Return the names of the last layers; a network that is taught by another one has two."""
    return (classifier,) if isinstance(classifier, str) else tuple(classifier or ())


def _means(
    name: str, known: dict[str, Any], mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    if mean is not None or std is not None:
        return mean, std
    if not known.get("mean") or not known.get("std"):
        raise ValueError(f"timm's configuration of {name} states no mean and std; give both")
    return known["mean"], known["std"]


def _channels(known: dict[str, Any], kwargs: dict[str, object]) -> int:
    """Return the number of channels of the images."""
    given = kwargs.get("in_chans")
    return given if isinstance(given, int) else int((known.get("input_size") or (3,))[0])


def input_side(name: str) -> int | None:
    """Return the side of the images that timm's network was made for; None for a network of the hub or of a folder.

    Nothing is downloaded. ValueError: timm has no such network.
    """
    timm = _package()
    _refuse_unknown(timm, name)
    known = None if _is_elsewhere(name) else timm.get_pretrained_cfg(name)
    return None if known is None else int(known.input_size[-1])


def _refuse_unknown(timm: Any, name: str) -> None:
    names = timm.list_models()
    if not _is_elsewhere(name) and name.partition(".")[0] not in names:
        near = get_close_matches(name, names, n=4, cutoff=0.4)
        raise ValueError(f"timm has no network {shown(name)}; nearest are {', '.join(near) or 'none'}")
