"""The blocks of a transformer as modules: which module returns the tokens of a block, and which reads them to attend.

Modules are followed during a pass. The block of an attention is the outermost module in a list or Sequential that
computes this attention and no other, and returns tokens n t c.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.types import Images
from efface.models.attended import attended, fingerprint, noise
from efface.models.attention import visible_attention
from efface.models.evaluation import evaluating
from efface.models.hook_watch import look_before, look_in

Tokens = Float[Tensor, "n t c"]


class Block(NamedTuple):
    """Names of the modules of a block.

    name: returns the tokens of the block.
    reader: innermost module around the attention that gets tokens; they are those that the attention reads, such as
        the output of `norm1`.
    """

    name: str
    reader: str


@dataclass(eq=False)
class _Call:
    """A call of a module: which number of tokens it gets and returns, and how many attentions it computes."""

    name: str
    reads: int
    attentions: int = 0
    returns: int = field(default=0)


def blocks_of(model: nn.Module, images: Images) -> list[Block]:
    """Return the modules of each block with attention, in their order of running.

    The first call for a size costs one more pass of two images than `attended`, which raises its errors here too.

    ValueError: no module returns the tokens of a block.
    """
    kept, now = _KNOWN.setdefault(model, {}), fingerprint(model, images)
    if now not in kept:
        count = attended(model, images).grid.total
        kept[now] = [_block(model, calls, count) for calls in _followed(model, images)]
    return kept[now]


_KNOWN: "WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], list[Block]]]" = WeakKeyDictionary()


def tokens_in(values: Any) -> Tokens | None:
    """Return the tokens in the output or among the arguments of a module: a tensor n t c, or the first entry."""
    first = next(iter(values), None) if isinstance(values, tuple | list) else values
    return first if isinstance(first, Tensor) and first.ndim == 3 else None


def with_tokens(values: Any, tokens: Tokens) -> Any:
    """Return the output or the arguments of a module with these tokens in place of its own."""
    return type(values)([tokens, *values[1:]]) if isinstance(values, tuple | list) else tokens


def _followed(model: nn.Module, images: Images) -> list[list[_Call]]:
    """Return the calls of modules around each attention, from the outermost to the innermost."""
    tried, running, around = noise(images, 1), list[_Call](), list[list[_Call]]()

    def enter(name: str, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        tokens = tokens_in(arguments) if arguments else tokens_in(list(named.values()))
        running.append(_Call(name, 0 if tokens is None else tokens.shape[1]))

    def leave(_: nn.Module, _arguments: Any, output: Any) -> None:
        tokens = tokens_in(output)
        running.pop().returns = 0 if tokens is None else tokens.shape[1]

    def see(_: Tensor) -> None:
        around.append([*running])
        for call in running:
            call.attentions += 1

    modules = dict(model.named_modules())
    handles = [look_before(module, partial(enter, name), with_kwargs=True) for name, module in modules.items()]
    handles += [look_in(module, leave) for module in modules.values()]
    try:
        with evaluating(model), torch.no_grad(), visible_attention(model, see=see):
            model(tried)
    finally:
        for handle in handles:
            handle.remove()
    return around


def _block(model: nn.Module, calls: list[_Call], count: int) -> Block:
    """Return the modules of the block around one attention."""
    own = [call for call in calls if call.attentions == 1 and call.returns == count]
    listed = [call for call in own if _is_listed(model, call.name)]
    if not own:
        raise ValueError(
            f"no module of {type(model).__name__} returns the tokens of a single block (n x {count} x channels); "
            "expected a module for each block"
        )
    readers = [call.name for call in calls if call.reads == count]
    return Block((listed or own)[0].name, readers[-1] if readers else "")


def _is_listed(model: nn.Module, name: str) -> bool:
    """Return True if a module is an item of a list of modules."""
    parent = model.get_submodule(name.rpartition(".")[0]) if name else None
    return isinstance(parent, nn.ModuleList | nn.Sequential | nn.ModuleDict)
