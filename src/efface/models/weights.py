"""State-dict files: they are read safely, compared with the network, and loaded as a whole or not at all."""

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from efface.models.published_names import renamed

_WRAPPERS = ("module.", "network.", "_orig_mod.")  # DataParallel, efface.models.torchvision, torch.compile
_SHOWN = 4


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a state-dict file, on the CPU, under the network's own names without those of wrappers.

    Only tensors are read, never code. The tensors may also be under the key `state_dict` of a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights: there is no file {path}; expected a state dict saved with torch.save")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as problem:
        raise ValueError(
            f"weights: {path} cannot be read as plain tensors; save the network's state_dict() with torch.save"
        ) from problem
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights: {path} contains no state dict; save the network's state_dict() with torch.save")
    while prefix := next((w for w in _WRAPPERS if all(key.startswith(w) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


def load_weights(network: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """Load the tensors into the network, either all of them or none.

    source: file of the tensors, for the error that lists the tensors that do not fit.
    """
    state, own = renamed(network, state), network.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]  # old files: none
    foreign = [key for key in state if key not in own]
    differing = [key for key in own if key in state and own[key].shape != state[key].shape]
    last = head(network)
    if differing and not missing and not foreign and {*differing} <= {f"{last}.weight", f"{last}.bias"}:
        key = differing[0]
        found = state[key].shape[0]
        raise ValueError(
            f"weights: {source}: num_classes is {own[key].shape[0]} in the study, {found} in the file; "
            f"set num_classes: {found} or take other weights"
        )
    problems = [
        ("only in the network", missing),
        ("only in the file", foreign),
        ("of another shape", [f"{key} {_shape(own[key])} (in the file {_shape(state[key])})" for key in differing]),
    ]
    if any(keys for _, keys in problems):
        listed = "; ".join(f"{problem}: {_some(keys)}" for problem, keys in problems if keys)
        raise ValueError(f"weights: {source} does not fit {type(network).__name__}; {listed}")
    network.load_state_dict(state)


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
