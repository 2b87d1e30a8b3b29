"""The softmax attention of every block of a transformer, made visible during forward passes.

Networks hide their attention: fused kernels never store it. Inside `visible_attention` torch's own functions compute it
explicitly: `scaled_dot_product_attention`, `multi_head_attention_forward` (which `nn.MultiheadAttention` calls) and
`softmax`. Nothing of the network is changed, so nothing has to be restored on it. The outputs agree with those of the
fused kernels up to rounding.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from efface.models.hook_watch import is_scripted

Attention = Float[Tensor, "n h q t"]
"""Softmax attention of one block: for each image, head and query token, a weight for each token; their sum is 1."""
See = Callable[[Attention], Any]


@contextmanager
def visible_attention(model: nn.Module, *, gradients: bool = False, see: See | None = None) -> Iterator[list[Any]]:
    """Collect the attention of each block during forward passes inside the `with` block, in the order of the blocks.

    The list that is yielded grows by one tensor for each block and pass; clear it between passes. A softmax over the
    last axis of an n h t t tensor counts as attention, and so does one of an n t t tensor, with one head.

    gradients: the tensors are part of the graph of the pass, so that the logits can be differentiated with respect to
        them. Attention that would not require a gradient becomes a leaf that does. Later attention still depends on
        earlier attention.
    see: function whose result is collected in place of the attention, to keep less of it.

    ValueError: torch.jit made the network or a part of it; or a block computes its attention in a way that cannot be
        shown, such as with a mask for padding.
    """
    if is_scripted(model):
        raise ValueError(
            f"torch.jit traced or scripted {type(model).__name__}, so its attention cannot be seen; hand over the "
            "network itself"
        )
    collected: list[Any] = []
    with _Explicit(collected, gradients=gradients, see=see):
        yield collected


class _Explicit(TorchFunctionMode):
    """Torch's attention, computed explicitly and collected. Inside a handler the mode is off."""

    def __init__(self, collected: list[Any], *, gradients: bool, see: See | None) -> None:
        super().__init__()
        self.collected, self.gradients, self.see = collected, gradients, see

    def __torch_function__(
        self,
        function: Callable[..., Any],
        _types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if function not in _HANDLED:
            return function(*args, **given)
        if function is F.scaled_dot_product_attention:
            return self._scaled_dot_product(*args, **given)
        if function is F.multi_head_attention_forward:
            return self._multi_head(_MULTI_HEAD.bind(*args, **given))
        if function in _SOFTMAX:
            return self._softmax(function(*args, **given), *args, **given)
        raise ValueError(
            f"the network calls torch's {function.__name__} itself, whose attention cannot be seen; let it call "
            "nn.MultiheadAttention or scaled_dot_product_attention"
        )

    def _kept(self, weights: Tensor) -> Tensor:
        """Collect attention n h q t or n q t, and return it as the network is to use it."""
        wide = weights if weights.ndim != 3 else weights[:, None]
        is_leaf = self.gradients and torch.is_grad_enabled() and not wide.requires_grad
        if is_leaf:
            wide = wide.detach().requires_grad_()
        self.collected.append(wide if self.see is None else self.see(wide))
        if is_leaf:
            wide = wide.clone()  # the network may work in place, which torch forbids on a leaf
        return wide if weights.ndim != 3 else wide[:, 0]

    def _softmax(self, result: Tensor, scores: Tensor, dim: int | None = None, *_: Any, **__: Any) -> Tensor:
        """Collect the result of a softmax if it is attention: over the last axis of n h q t, or of n t t."""
        last = result.ndim - 1
        is_attention = result.ndim == 4 or (result.ndim == 3 and result.shape[1] == result.shape[2])
        return self._kept(result) if is_attention and dim in (-1, last) and scores.is_floating_point() else result

    def _scaled_dot_product(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,  # noqa: FBT001, FBT002  torch's own signature
        scale: float | None = None,
        enable_gqa: bool = False,  # noqa: FBT001, FBT002
    ) -> Tensor:
        """Return what torch's function of this name returns."""
        _refuse_dropout(dropout_p)
        if enable_gqa:
            key, value = (each.repeat_interleave(query.shape[-3] // each.shape[-3], -3) for each in (key, value))
        scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.mT
        if is_causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        if attn_mask is not None:
            scores = _masked(scores, attn_mask, allowed=True)
        return self._kept(scores.softmax(-1)) @ value

    def _multi_head(self, bound: inspect.BoundArguments) -> tuple[Tensor, Tensor | None]:
        """Return what torch's `multi_head_attention_forward` returns: the output t n c, and the weights if needed."""
        bound.apply_defaults()
        given = bound.arguments
        _refuse_unusual(given)
        if given["training"]:
            _refuse_dropout(given["dropout_p"])
        query, heads = given["query"], given["num_heads"]
        length, count, width = query.shape
        q, k, v = (each.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3) for each in _projected(given))
        scores = (q * q.shape[-1] ** -0.5) @ k.mT
        mask = given["attn_mask"]
        if mask is not None:
            mask = mask.unflatten(0, (count, heads)) if mask.ndim == 3 else mask
            scores = _masked(scores, mask, allowed=False)
        weights = self._kept(scores.softmax(-1))
        mixed = (weights @ v).permute(2, 0, 1, 3).reshape(length, count, width)
        output = F.linear(mixed, given["out_proj_weight"], given["out_proj_bias"])
        if not given["need_weights"]:
            return output, None
        return output, weights.mean(1) if given["average_attn_weights"] else weights


_SOFTMAX = {F.softmax, torch.softmax, torch.special.softmax, Tensor.softmax}
_UNSEEN = {
    getattr(torch, name)
    for name in ("_native_multi_head_attention", "_transformer_encoder_layer_fwd")
    if hasattr(torch, name)
}
"""Fused functions that nn.MultiheadAttention and its kin use only where no function of torch is replaced."""
_HANDLED = {F.scaled_dot_product_attention, F.multi_head_attention_forward, *_SOFTMAX, *_UNSEEN}
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


def _projected(given: dict[str, Any]) -> tuple[Tensor, ...]:
    """Return query, key and value after their projections, t n c each."""
    sources = tuple(given[name] for name in ("query", "key", "value"))
    bias = given["in_proj_bias"]
    if given["use_separate_proj_weight"]:
        weights = tuple(given[f"{name}_proj_weight"] for name in "qkv")
    elif sources[0] is sources[1] is sources[2]:
        return F.linear(sources[0], given["in_proj_weight"], bias).chunk(3, -1)
    else:
        weights = given["in_proj_weight"].chunk(3)
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    return tuple(map(F.linear, sources, weights, biases))


def _masked(scores: Tensor, mask: Tensor, *, allowed: bool) -> Tensor:
    """Return the scores with a mask of torch: numbers are added, and True means `allowed`, or forbidden."""
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask if allowed else mask, -torch.inf)
    return scores + mask


def _refuse_unusual(given: dict[str, Any]) -> None:
    """Raise ValueError for what `_Explicit` does not compute as `nn.MultiheadAttention` does."""
    unusual = [
        name for name in ("bias_k", "bias_v", "key_padding_mask", "static_k", "static_v") if given[name] is not None
    ]
    unusual += ["add_zero_attn"] * bool(given["add_zero_attn"]) + ["a query without images"] * (
        given["query"].ndim != 3
    )
    if unusual:
        raise ValueError(
            f"the network's nn.MultiheadAttention uses {', '.join(unusual)}, whose attention efface does not show; "
            "choose a method without attention"
        )


def _refuse_dropout(probability: float) -> None:
    if probability:
        raise ValueError(
            f"the network drops attention with probability {probability} also in evaluation mode; expected 0: let it "
            "pass dropout only while it trains"
        )
