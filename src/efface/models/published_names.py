"""Names of the tensors in checkpoints of published networks, where they differ from those of the networks here.

A network that such checkpoints are for carries the function as `published_names`. `efface.models.weights.load_weights`
asks it for the names of today.
"""

import re
from collections.abc import Callable, Mapping

from torch import Tensor, nn

_STEM = {"0": "conv1", "1": "bn1"}
_BASIC = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2"}
_BOTTLENECK = _BASIC | {"6": "conv3", "7": "bn3"}
_STAGE = re.compile(r"conv([2-5])_x\.(\d+)\.(residual_function|shortcut)\.(\d+)\.(\w+)")


def with_names(network: nn.Module, rename: Callable[[str], str]) -> nn.Module:
    """Return the network, which from now on takes checkpoints whose names `rename` turns into its own."""
    network.__dict__["published_names"] = rename
    return network


def renamed(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors by the names of the network, if it knows the names that its checkpoints had elsewhere.

    A tensor keeps its name where the network has no such tensor, so that an error shows the file's own name.
    """
    rename = getattr(network, "published_names", None)
    if rename is None:
        return dict(state)
    own = network.state_dict()
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        new = rename(name)
        tensors[new if name not in own and new in own and new not in state else name] = value
    return tensors


def score_matching_name(name: str) -> str:
    """Return the name here of a tensor in a checkpoint of the score-matching system; any other name as it is.

    Its ResNets have a stem `conv1.0`, `conv1.1`, stages `conv2_x` to `conv5_x` and a head `fc`. Its VGGs have the head
    `classifier`. The other names are the same.

    Source: the released code of Srinivas & Fleuret 2021 (arXiv:2006.09128), `models/resnet.py` and `models/vgg.py`.
    """
    head, _, rest = name.partition(".")
    if head in ("fc", "classifier"):
        return f"linear.{rest}"
    if head == "conv1" and rest[:2] in ("0.", "1."):
        return f"{_STEM[rest[0]]}.{rest[2:]}"
    if match := _STAGE.fullmatch(name):
        stage, block, part, place, tensor = match.groups()
        inside = _BOTTLENECK.get(place, place) if part == "residual_function" else f"shortcut.{place}"
        return f"layer{int(stage) - 1}.{block}.{inside}.{tensor}"
    return name
