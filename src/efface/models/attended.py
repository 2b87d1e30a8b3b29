"""What the attention of a transformer says of an image: between which tokens it runs, and which of them the head reads.

Attention methods follow the attention from the tokens that the head reads back to the patches. Most vision transformers
read the class token. Others read the mean of the patches, or a class token and a distillation token. Which tokens are
read is not taken from their names: the logits are differentiated with respect to the last attention, and a row of it
without any gradient belongs to a token that the head does not read.
"""

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images
from efface.models.attention import visible_attention
from efface.models.evaluation import evaluating
from efface.models.scores import differentiable, logits_of
from efface.models.tokens import STATED, TokenGrid, token_grid

_TRIED = 2  # images; with one, an attention inside windows could look like attention between all tokens


class Attended(NamedTuple):
    """How a network attends, for images of one size.

    grid: how its tokens lie.
    depth: number of blocks with attention between all tokens, in their order of running.
    read: numbers of the tokens that the head reads; with `pools`, of the queries.
    pools: True if the head pools the tokens by an attention of its own, which runs after the blocks: n h q t, from a
        few learnt queries to all tokens.
    """

    grid: TokenGrid
    depth: int
    read: tuple[int, ...]
    pools: bool = False

    def rows(self, like: Tensor) -> Float[Tensor, "1 r t"]:
        """Return a row for each token that the head reads: 1 at this token, else 0."""
        return torch.eye(self.grid.total, dtype=like.dtype, device=like.device)[None, list(self.read)]


def attended(model: nn.Module, images: Images, *, pooled: bool = False) -> Attended:
    """Return how the network attends for images of this size.

    The first call for a size costs a forward and a backward pass of two images of noise.

    pooled: True for a method that follows a head that pools tokens by attention, too; False refuses such a network.

    ValueError: the network has no attention, or one that is not between all of its tokens: inside windows, of a class
        token alone, or between channels; or its tokens lie in a grid that is not known.
    """
    kept, now = _KNOWN.setdefault(model, {}), fingerprint(model, images)
    if now in kept:
        found = kept[now]
    else:
        with evaluating(model):
            found, surely = _attended(model, images)
        if surely:
            kept[now] = found
    if found.pools and not pooled:
        raise ValueError(
            f"attention {found.depth} of {type(model).__name__} pools {found.grid.total} tokens for the head; this "
            "method expects attention between all tokens in every block: choose attention_rollout, generic_attention "
            "or attention_grad_cam, or a method without attention"
        )
    return found


_KNOWN: "WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], Attended]]" = WeakKeyDictionary()


def fingerprint(model: nn.Module, images: Images) -> tuple[Any, ...]:
    """Return what the way of a network's tokens depends on: size, stated tokens, kinds and words of its modules."""
    found: list[Any] = [*images.shape[1:], vars(model).get(STATED)]
    left = [model]
    while left:  # `modules()` takes ten times as long, for it also makes their names
        module = left.pop()
        held = vars(module)
        found.append(type(module))
        found += [value for value in held.values() if type(value) is str]
        left += [child for child in held["_modules"].values() if child is not None]
    return tuple(found)


def noise(images: Images, count: int) -> Float[Tensor, "count c h w"]:
    """Return images of uniform noise, of the size and kind of these; always the same."""
    seeds = draws.seeds_of("images on which the tokens of a network are followed", torch.arange(count))
    return draws.uniform(seeds, tuple(images.shape[1:])).to(images)


def _attended(model: nn.Module, images: Images) -> tuple[Attended, bool]:
    """Return how the network attends, and whether it is known for sure which tokens the head reads."""
    tried = noise(images, _TRIED)
    with visible_attention(model, gradients=True) as attention:
        logits = logits_of(model, tried)
    pools = _pools(attention)
    _check(model, attention[:-1] if pools else attention)
    grid = token_grid(model, images)
    count = attention[-1].shape[-1]
    if grid.total != count:
        raise ValueError(
            f"the attention of {type(model).__name__} is a square of {count}, but its layers compute with {grid}, "
            f"{grid.total} tokens; expected attention between all tokens: choose a method without attention"
        )
    if not logits.requires_grad:
        differentiable(model, tried)
    weights = torch.linspace(1, 2, logits.shape[1]).to(logits)  # equal weights would cancel where logits sum to 0
    (gradient,) = torch.autograd.grad((logits * weights).sum(), attention[-1], allow_unused=True)
    depth = len(attention) - pools
    if gradient is not None and (read := (gradient != 0).any(3).any(1).any(0)).any():
        return Attended(grid, depth, tuple(read.nonzero().flatten().tolist()), pools), True
    # a last layer of zeros, as of a new network
    usual = range(attention[-1].shape[2]) if pools else (0,) if grid.prefix else range(grid.total)
    return Attended(grid, depth, tuple(usual), pools), False


def _pools(attention: list[Tensor]) -> bool:
    """Return whether the last attention is one from a few queries to the tokens of the blocks before."""
    if len(attention) < 2 or any(each.ndim != 4 for each in attention[-2:]):
        return False
    (_, _, queries, read), before = attention[-1].shape, attention[-2].shape
    return queries < read == before[2] == before[3]


def _check(model: nn.Module, attention: list[Tensor]) -> None:
    """Raise ValueError unless all attention is between the same tokens of each image."""
    name, remedy = type(model).__name__, "choose a method without attention"
    if not attention:
        raise ValueError(
            f"{name} computes no attention that efface can see: no softmax over n x heads x tokens x tokens, and no "
            f"scaled_dot_product_attention; {remedy}"
        )
    count = attention[-1].shape[-1]
    for number, each in enumerate(attention):
        if each.ndim == 4 and each.shape[0] == _TRIED and each.shape[2:] == (count, count):
            continue
        why = _why(each, count)
        shape = " x ".join(map(str, each.shape[1:]))
        raise ValueError(
            f"attention {number} of {name} is {each.shape[0]} x {shape} for {_TRIED} images ({why}); expected images x "
            f"heads x tokens x tokens in every block: {remedy}"
        )


def _why(attention: Tensor, count: int) -> str:
    if attention.ndim != 4 or attention.shape[0] != _TRIED:
        return "it runs inside windows"
    if attention.shape[2] != attention.shape[3]:
        return f"{attention.shape[2]} tokens read {attention.shape[3]} others"
    return f"another attention is between {count} tokens"
