"""LeGrad: how each block's attention would change the score if the head read the tokens of this block."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from efface.base.types import Images, Target, TargetScore
from efface.methods.attention.passes import ClassesOf, Map, first_block, gradients_of, laid_out
from efface.models.attended import Attended, attended
from efface.models.attention import visible_attention
from efface.models.attention_blocks import Block, blocks_of, tokens_in, with_tokens
from efface.models.evaluation import evaluating
from efface.models.memory import at_once, blocks
from efface.models.scores import scores_of


def legrad(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    start: int = 0,
    score: TargetScore = "logit",
    max_batch: int = 256,
    classes_of: ClassesOf | None = None,
) -> Map:
    """Positive gradient of each block's own score with respect to its attention, mean over blocks: never negative.

    Formula: map = mean over blocks l, heads and queries of relu(d s_l / d A_l), with s_l the score if every token after
        the last block were the mean token of block l.

    The gradient of a block's score goes to this block's attention alone. The attention itself is not multiplied in. All
    queries count, so no row of a class token is needed. It costs one forward pass per image, and a backward pass
    through the second half of each block.

    start: number of the first block that is used, from 0.
    score: score of the target class to explain: logit, log_probability, probability or loss (cross entropy). If
        `targets` are weights of the classes, it must be logit.
    max_batch: most images in one pass, at least 1. It limits the memory and changes maps by rounding only. The last
        layers run on as many rows as there are blocks for each image.
    classes_of: function from logits to target classes, in place of `targets`. It is called once per image, in order,
        with the logits of this pass.

    Source: Bousselham et al. 2024, section 3 (arXiv:2404.03214).
    Differs: all blocks count, where the released code takes the last ones. No scaling to [0, 1].
    """
    found, modules = attended(model, images), blocks_of(model, images)
    start = first_block(start, found)
    maps = []
    with evaluating(model), visible_attention(model, gradients=True) as attention:
        for block in blocks(len(images), at_once(images, max_batch)):
            attention.clear()
            count = len(images[block])
            with _read_at_every_block(model, modules, start):
                logits = model(images[block].detach())
            logits = _checked(model, logits, count * (1 + found.depth - start))
            aims = targets[block] if classes_of is None else classes_of(logits[:count].detach())
            again = aims.repeat(found.depth - start, *(1,) * (aims.ndim - 1))
            gradients = gradients_of(model, scores_of(logits[count:], again, score), attention[start:], images[block])
            maps.append(_map(found, gradients, images[block]))
    return torch.cat(maps)


def _map(found: Attended, gradients: list[Tensor], images: Images) -> Map:
    rows = torch.stack([each.relu().mean((1, 2)) for each in gradients]).mean(0)
    return laid_out(found, rows[:, None], images)


@contextmanager
def _read_at_every_block(model: nn.Module, modules: list[Block], start: int) -> Iterator[None]:
    """Let a pass continue after the last block with its tokens, and with the mean tokens of each block behind them.

    A block gets the tokens of the block before without their graph, so that its own attention alone has a part in them.
    """
    means: list[Tensor] = []
    calls = 0

    def read(_: nn.Module, _arguments: Any, output: Any) -> Any:
        nonlocal calls
        tokens, calls = tokens_in(output), calls + 1
        assert tokens is not None, "the modules were found by their tokens"
        if calls > start:
            means.append(tokens.mean(1, keepdim=True))
        if calls < len(modules):
            return with_tokens(output, tokens.detach())
        return with_tokens(output, torch.cat([tokens.detach(), *(each.expand_as(tokens) for each in means)]))

    handles = [
        model.get_submodule(name).register_forward_hook(read)
        for name in dict.fromkeys(module.name for module in modules)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _checked(model: nn.Module, logits: Any, count: int) -> Tensor:
    """Return the logits of a pass whose last layers ran on more rows than there are images."""
    if isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == count:
        return logits
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    raise ValueError(
        f"{type(model).__name__} returns {shape} where its last layers get the tokens of {count} images; expected "
        f"logits ({count}, classes): LeGrad needs last layers that treat each image alone"
    )
