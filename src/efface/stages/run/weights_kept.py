"""A network that a method must not change: its weights are compared, and a changed network is given up.

A network that a thread can still reach is given up, too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from efface.models.fast_copy import own_tensors
from efface.stages.run.left_threads import left_since, running
from efface.stages.run.progress import say


@contextmanager
def weights_kept(
    network: nn.Module,
    culprit: str,
    give_up: Callable[[], Any],
    renew: Callable[[], Any] | None = None,
    tell: Callable[[str], Any] | None = None,
    *,
    on_trial: bool = False,
) -> Iterator[None]:
    """Compare the weights and buffers of a network before and after the block.

    If the block leaves a thread, the network is loaded again for the others. Then the thread can reach only the old
    one.

    culprit: what runs in the block, for the message.
    give_up: called if they differ, also after an exception; it makes the caller load the network again.
    renew: called if a thread is left. It loads the network again, and keeps what was made so far; None: `give_up`.
    tell: called with a sentence on a thread that is left. None: it is printed, once for each culprit.
    on_trial: True before the work begins, when there are no maps yet, for the message.

    ValueError: they differ.
    """
    before, threads = {name: _kept(value) for name, value in _held(network).items()}, running()
    try:
        yield
    except BaseException:
        if _changed(network, before):
            give_up()
        elif left_since(threads):
            (renew or give_up)()
        raise
    if changed := _changed(network, before):
        give_up()
        shown = ", ".join(changed[:4]) + (f" and {len(changed) - 4} more" if len(changed) > 4 else "")
        so = "are not kept, and the network is loaded again for the others"
        raise ValueError(
            f"{culprit}: it changed the network ({shown}), so its maps {'would not be kept' if on_trial else so}; work "
            "on a copy, copy.deepcopy(model), and leave the model in evaluation mode"
        )
    if left := left_since(threads):
        (renew or give_up)()
        (tell or _say_once)(
            f"{culprit}: it leaves a thread running ({', '.join(left[:4])}), which may change the network later, so "
            "the network is loaded again for the others; join the thread before the method returns"
        )


_SAID: set[str] = set()


def _say_once(sentence: str) -> None:
    culprit = sentence.partition(":")[0]  # names of threads have numbers
    if culprit not in _SAID:
        _SAID.add(culprit)
        say(f"warning: {sentence}")


def tensor_bytes(value: Any) -> bytes:
    """Return the bytes of an entry of a state dict: a tensor of any kind, or what a quantised layer keeps."""
    if not isinstance(value, torch.Tensor):
        return b"".join(map(tensor_bytes, value)) if isinstance(value, tuple | list) else repr(value).encode()
    if value.is_quantized:
        return repr((value.shape, value.qscheme(), value.dequantize().tolist())).encode()
    if value.dtype == torch.bfloat16:  # unknown to NumPy
        value = value.view(torch.int16)
    return np.ascontiguousarray(value.numpy(force=True)).tobytes()


def _held(network: nn.Module) -> dict[str, Any]:
    """Return the weights and buffers by name, and what else stands in the state dict."""
    held, more = dict[str, Any](), False
    for place, module in network.named_modules(remove_duplicate=False):
        for own in own_tensors(module):
            held |= {f"{place}.{name}" if place else name: value for name, value in own.items() if value is not None}
        more = more or _keeps_more(module)
    return held | network.state_dict() if more else held


def _keeps_more(module: nn.Module) -> bool:
    """Return whether a module's entries of the state dict may be more than its tensors, as in a quantised layer."""
    kind = type(module)
    return (
        kind._save_to_state_dict is not nn.Module._save_to_state_dict  # noqa: SLF001  a part of torch's protocol
        or kind.get_extra_state is not nn.Module.get_extra_state
        or isinstance(module, torch.jit.ScriptModule)
    )


def _changed(network: nn.Module, before: dict[str, Any]) -> list[str]:
    """Return the names whose values are not those of before."""
    after = _held(network)
    return sorted(
        name
        for name in before.keys() | after.keys()
        if name not in before or name not in after or not _is_same(before[name], after[name])
    )


def _kept(value: Any) -> Any:
    """Return a copy of a plain tensor, and the bytes of everything else."""
    return value.detach().clone() if type(value) in _PLAIN and not value.is_quantized else tensor_bytes(value)


def _is_same(kept: Any, value: Any) -> bool:
    if not isinstance(kept, torch.Tensor):
        return tensor_bytes(value) == kept
    value = value.detach()
    if kept.dtype != value.dtype or kept.device != value.device:
        return False
    return torch.equal(kept, value) or (kept.shape == value.shape and tensor_bytes(kept) == tensor_bytes(value))


_PLAIN = (torch.Tensor, nn.Parameter)
"""Types of tensors whose copies can be compared with them. Other types may be anything."""
