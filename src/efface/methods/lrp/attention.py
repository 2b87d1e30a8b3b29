"""Attention, written out in the operations that have rules: softmax, fused attention, and nn.MultiheadAttention."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from efface.methods.lrp.functions import Ratio, TemperedSoftmax, applied
from efface.methods.lrp.mode import Handler, Propagation, bound, by_function, depends


def _softmax(mode: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    names = "input dim _stacklevel dtype" if func is F.softmax else "input dim dtype"
    given = {"dtype": None} | bound(names, args, kwargs)
    scores, dim, dtype = given["input"], given.get("dim"), given["dtype"]
    if dim is None or not depends(scores):
        return func(*args, **kwargs)
    scores = scores if dtype is None else scores.to(dtype)
    result: Tensor
    if mode.rules.softmax == "ratio":
        result = applied(Ratio, scores, lambda scores: scores.softmax(dim))
    elif mode.rules.temperature != 1:
        result = applied(TemperedSoftmax, scores, dim, mode.rules.temperature)
    else:
        result = scores.softmax(dim)
        if mode.rules.softmax == "blocked":
            mode.blocked[result.grad_fn] = "a softmax whose output is not the weights of an average"
    return mode.mark(result, "weights")


def _attention(mode: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = bound("query key value attn_mask dropout_p is_causal scale enable_gqa", args, kwargs)
    query, key, value = (given[name] for name in ("query", "key", "value"))
    if not (depends(query) or depends(key) or depends(value)) or given.get("dropout_p", 0.0):
        return func(*args, **kwargs)
    if given.get("enable_gqa"):
        key, value = (each.repeat_interleave(query.shape[-3] // each.shape[-3], -3) for each in (key, value))
    mask, scale = given.get("attn_mask"), given.get("scale")
    if given.get("is_causal"):
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    weighted = mode.rules.products == "weighted"
    with mode:
        if weighted:  # no relevance passes through the scores, so no graph of them is needed
            query, key = query.detach(), key.detach()
        scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.mT
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        weights = mode.mark(scores.softmax(-1), "weights")
        return weights @ value


_MULTIHEAD = (
    "query key value embed_dim_to_check num_heads in_proj_weight in_proj_bias bias_k bias_v add_zero_attn dropout_p "
    "out_proj_weight out_proj_bias training key_padding_mask need_weights attn_mask use_separate_proj_weight "
    "q_proj_weight k_proj_weight v_proj_weight static_k static_v average_attn_weights is_causal"
)


def _multihead(mode: Propagation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = bound(_MULTIHEAD, args, kwargs)
    query = given["query"]
    if not any(depends(given[name]) for name in ("query", "key", "value")):
        return func(*args, **kwargs)
    odd = [
        name for name in ("bias_k", "bias_v", "static_k", "static_v", "key_padding_mask") if given.get(name) is not None
    ]
    odd += ["add_zero_attn"] if given["add_zero_attn"] else []
    if odd or query.ndim != 3 or (given.get("training", True) and given["dropout_p"]):
        what = ", ".join(odd) or ("unbatched input" if query.ndim != 3 else "dropout")
        raise ValueError(
            f"{mode.title}: nn.MultiheadAttention runs with {what}, which has no rule; expected attention without it: "
            "choose another method"
        )
    with mode:
        return _written_out(mode, given)


def _written_out(mode: Propagation, given: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    """Return what nn.MultiheadAttention computes: the output t n c, and the weights where they are asked for."""
    heads, (length, n, width) = given["num_heads"], given["query"].shape
    if given.get("use_separate_proj_weight"):
        parts = [given[f"{name}_proj_weight"] for name in "qkv"]
    else:
        parts = list(given["in_proj_weight"].chunk(3))
    biases = [None] * 3 if given["in_proj_bias"] is None else list(given["in_proj_bias"].chunk(3))
    inputs = [given[name] for name in ("query", "key", "value")]
    if inputs[0] is inputs[1] is inputs[2] and not given.get("use_separate_proj_weight"):
        projected = list(F.linear(inputs[0], given["in_proj_weight"], given["in_proj_bias"]).chunk(3, -1))
    else:
        projected = [F.linear(*each) for each in zip(inputs, parts, biases, strict=True)]
    query, key, value = (each.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3) for each in projected)
    if mode.rules.products == "weighted":
        query, key = query.detach(), key.detach()
    scores = (query * query.shape[-1] ** -0.5) @ key.mT
    if (mask := given.get("attn_mask")) is not None:
        mask = mask.unflatten(0, (n, heads)) if mask.ndim == 3 else mask
        scores = scores.masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    weights = mode.mark(scores.softmax(-1), "weights")
    output = (weights @ value).permute(2, 0, 1, 3).reshape(length, n, width)
    output = F.linear(output, given["out_proj_weight"], given["out_proj_bias"])
    if not given.get("need_weights", True):
        return output, None
    return output, weights.mean(1) if given.get("average_attn_weights", True) else weights


HANDLERS: dict[Any, Handler] = {
    **by_function(_softmax, "softmax"),
    **by_function(_attention, "scaled_dot_product_attention"),
    **by_function(_multihead, "multi_head_attention_forward"),
}
"""The replacements of torch functions, by function."""
