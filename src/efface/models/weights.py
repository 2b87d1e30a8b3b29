"""State-dict files: they are read safely, compared with the network, and loaded as a whole or not at all."""

import argparse
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from efface.models.published_names import renamed

_PREFIXES = ("module.", "network.", "_orig_mod.", "model.")  # DataParallel, efface 0.1, torch.compile, Lightning
_SHOWN = 4
_DEEPEST = 3  # levels of a checkpoint in which a state dict is looked for
_OF_TRAINING = re.compile(r"optim|sched|scaler", re.IGNORECASE)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a state-dict file, on the CPU, under the names of the file without `module.` and the like.

    Only tensors are read, never code. The tensors may also be one entry of a checkpoint, such as `state_dict`, `model`
    or `net`. With several such entries, write `FILE#ENTRY`, and `FILE#PREFIX` for the tensors whose names begin with
    `PREFIX.`, such as `ema_model.module`. A file that ends in `.safetensors` is read if the package
    safetensors is installed. ValueError: the file contains something else. The message says what.
    """
    path, entry = _split(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights: there is no file {path}; expected a state dict saved with torch.save")
    state = _tensors(path, _read(path), entry)
    wrapper = _wrapper(state)
    return {key.removeprefix(wrapper): value for key, value in state.items()}


def _wrapper(names: Iterable[str]) -> str:
    """Return the prefixes of wrappers, such as `module.model.`, with which all names begin; "" for none."""
    names, wrapper = list(names), ""
    while names and (
        new := next((prefix for prefix in _PREFIXES if all(n.startswith(wrapper + prefix) for n in names)), "")
    ):
        wrapper += new
    return wrapper


def _split(path: str | Path) -> tuple[Path, str]:
    """Return the file and the entry that a text FILE#ENTRY names; an existing file may have this sign in its name."""
    if "#" in str(path) and not Path(path).is_file():
        file, _, entry = str(path).rpartition("#")
        return Path(file), entry
    return Path(path), ""


def weights_file(path: str | Path) -> Path:
    """Return the file of a setting `weights`, which may name an entry behind a `#`."""
    return _split(path)[0]


def _read(path: Path) -> Any:
    """Return what a file contains. ValueError: it cannot be read as tensors."""
    with path.open("rb") as file:
        start = file.read(200)
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(f"weights: {path} is a pointer of Git LFS and not the file; fetch it with git lfs pull")
    if start.lstrip()[:1] == b"<":
        raise ValueError(f"weights: {path} is a web page and not a file of weights; download the file again")
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError as problem:
            raise ValueError(f"weights: {path} needs the package safetensors: pip install safetensors") from problem
        try:
            return load_file(path)
        except Exception as problem:  # the library has its own kind of errors
            raise ValueError(f"weights: {path} is no complete file of safetensors ({problem})") from problem
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # a plain record of settings in many checkpoints
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # torch raises many types for a wrong file
        match = re.search(r"GLOBAL (\S+)", str(problem))
        holds = f" (it holds a Python object, {match[1]})" if match else ""
        raise ValueError(
            f"weights: {path} cannot be read as plain tensors{holds}; save the network's state_dict() with torch.save"
        ) from problem


def _tensors(path: Path, content: Any, entry: str) -> dict[str, Tensor]:
    """Return the state dict in a file's content. ValueError: there is none, or there are several."""
    if _is_state(content) and not entry:
        return dict(content)
    entries = dict(_entries(content)) if _is_dict(content) else {}
    if entry and entry in entries:
        return entries[entry]
    if entry and (part := _part(content, entries, entry)):
        return part
    if not entry and len(entries) == 1:
        return next(iter(entries.values()))
    if entries:
        listed = " or ".join(f"{path}#{name}" for name in entries)
        raise ValueError(f"weights: {path} contains {len(entries)} state dicts; write weights: {listed}")
    holds = (
        f"its keys are {_some(list(_keys(content)))}"
        if _is_dict(content) and content
        else f"a {type(content).__name__}"
    )
    raise ValueError(
        f"weights: {path} contains no state dict ({holds}); save the network's state_dict() with torch.save"
    )


def _part(content: Any, entries: dict[str, dict[str, Tensor]], entry: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `entry`, or with what follows an entry's name in it; {} for none."""
    places = {f"{name}.": state for name, state in entries.items()}
    if _is_state(content) or len(entries) == 1:
        places[""] = content if _is_state(content) else next(iter(entries.values()))
    for place, state in places.items():
        for wrapper in ("", _wrapper(state)):
            start = f"{wrapper}{entry.removeprefix(place)}."
            part = {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
            if entry.startswith(place) and part:
                return part
    return {}


def _entries(checkpoint: Mapping[Any, Any]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the state dicts in a checkpoint, by their keys, such as `model` or `checkpoint.state_dict`.

    Deeper ones count only where there is none above them. What an optimizer keeps is left out.
    """
    level: list[tuple[tuple[str, ...], Any]] = [((str(key),), value) for key, value in checkpoint.items()]
    for _ in range(_DEEPEST):
        level = [(keys, value) for keys, value in level if _is_dict(value) and not _OF_TRAINING.search(keys[-1])]
        if states := [(".".join(keys), dict(value)) for keys, value in level if _is_state(value)]:
            yield from states
            return
        level = [((*keys, str(key)), entry) for keys, value in level for key, entry in value.items()]


def _keys(checkpoint: Mapping[Any, Any]) -> Iterator[str]:
    """Yield the keys of a checkpoint; of a state dict that holds other values, too, the first of them."""
    for key, value in checkpoint.items():
        odd = [name for name, entry in value.items() if not isinstance(entry, Tensor)] if _is_dict(value) else []
        is_nearly = odd and len(odd) < len(value)
        yield f"{key} (with '{odd[0]}', a {type(value[odd[0]]).__name__} among tensors)" if is_nearly else str(key)


def _is_dict(content: Any) -> bool:
    return isinstance(content, Mapping)


def _is_state(content: Any) -> bool:
    return _is_dict(content) and bool(content) and all(isinstance(value, Tensor) for value in content.values())


def load_weights(network: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """Load the tensors into the network, either all of them or none.

    If all names of the network stand in the file behind one prefix, such as Lightning's `model.`, that part is loaded.

    source: file of the tensors, for the error that lists the tensors that do not fit.
    """
    state, own = renamed(network, behind_prefix(network, state, source)), network.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]  # old files: none
    foreign = [key for key in state if key not in own]
    differing = [key for key in own if key in state and own[key].shape != state[key].shape]
    last = head(network)
    if differing and not missing and not foreign and {*differing} <= {f"{last}.weight", f"{last}.bias"}:
        key = differing[0]
        classes = state[key].shape[0]
        raise ValueError(
            f"weights: {source}: num_classes is {own[key].shape[0]} in the study, {classes} in the file; "
            f"set num_classes: {classes} or take other weights"
        )
    problems = [
        ("only in the network", missing),
        ("only in the file", foreign),
        ("of another shape", [f"{key} {_shape(own[key])} (in the file {_shape(state[key])})" for key in differing]),
    ]
    if any(keys for _, keys in problems):
        listed = "; ".join(f"{problem}: {_some(keys)}" for problem, keys in problems if keys)
        raise ValueError(f"weights: {source} does not fit {type(network).__name__}; {listed}")
    if len(state) == len(own):  # then no module is of an older version, which has fewer tensors
        state = OrderedDict(state)
        state._metadata = getattr(own, "_metadata", {})  # type: ignore[attr-defined]  # noqa: SLF001  its modules' versions
    network.load_state_dict(state)


def behind_prefix(network: nn.Module, state: dict[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """Return the part of the tensors behind the one prefix with which the file has all names of the network.

    ValueError: there are several such prefixes, as in a file of a network and of its moving average.
    """
    own = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
    if not own or any(name in state for name in own):
        return state
    if wrapper := _wrapper(own):  # the network is a wrapper itself, and `read_weights` took its prefix away
        state = {wrapper + key: value for key, value in state.items()}
        if all(name in state for name in own):
            return state
    starts = {key.removesuffix(own[0]) for key in state if key.endswith(f".{own[0]}")}
    fitting = [start for start in starts if all(start + name in state for name in own)]
    if len(fitting) > 1:
        file, entry = _split(source)
        before = f"{file}#{entry}." if entry else f"{file}#"
        listed = " or ".join(before + start.removesuffix(".") for start in sorted(fitting))
        raise ValueError(f"weights: {source} has {len(fitting)} networks that fit; write weights: {listed}")
    if not fitting:
        return state
    return {key.removeprefix(fitting[0]): value for key, value in state.items() if key.startswith(fitting[0])}


def head(network: nn.Module) -> str:
    """Return the name of the layer that computes the class scores: the last linear layer, else the last convolution."""
    for kind in (nn.Linear, nn.Conv2d):
        names = [name for name, module in network.named_modules() if isinstance(module, kind)]
        if names:
            return names[-1]
    raise ValueError(f"{type(network).__name__} has neither a linear layer nor a convolution that gives class scores")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _some(keys: list[str]) -> str:
    rest = len(keys) - _SHOWN
    return ", ".join(keys[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
