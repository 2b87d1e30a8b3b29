"""A network whose weights a method must not change: they are compared, and a changed network is given up."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


@contextmanager
def weights_kept(network: nn.Module, culprit: str, give_up: Callable[[], Any]) -> Iterator[None]:
    """Compare the weights and buffers of a network before and after the block.

    culprit: what runs in the block, for the message.
    give_up: called if they differ, also after an exception; it makes the caller load the network again.

    ValueError: they differ.
    """
    before = _marks(network)
    try:
        yield
    except BaseException:
        if _marks(network) != before:
            give_up()
        raise
    after = _marks(network)
    if after != before:
        give_up()
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        shown = ", ".join(changed[:4]) + (f" and {len(changed) - 4} more" if len(changed) > 4 else "")
        raise ValueError(
            f"{culprit}: it changed the network ({shown}), so its maps are not kept, and the network is loaded again "
            "for the others; work on a copy, copy.deepcopy(model), and leave the model in evaluation mode"
        )


def tensor_bytes(value: Any) -> bytes:
    """Return the bytes of an entry of a state dict: a tensor of any kind, or what a quantised layer keeps."""
    if not isinstance(value, torch.Tensor):
        return b"".join(map(tensor_bytes, value)) if isinstance(value, tuple | list) else repr(value).encode()
    if value.is_quantized:
        return repr((value.shape, value.qscheme(), value.dequantize().tolist())).encode()
    if value.dtype == torch.bfloat16:  # unknown to NumPy
        value = value.view(torch.int16)
    return np.ascontiguousarray(value.numpy(force=True)).tobytes()


def _marks(network: nn.Module) -> dict[str, int]:
    """Return a checksum of each weight and buffer, with its type."""
    held = network.state_dict() | dict(network.named_buffers())
    return {
        name: zlib.crc32(tensor_bytes(value), zlib.crc32(str(getattr(value, "dtype", "")).encode()))
        for name, value in held.items()
    }
