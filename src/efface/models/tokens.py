"""Tokens of a transformer: how many stand before those of the patches, and in which grid the patches lie.

A vision transformer cuts the image into patches, row by row, and makes a token of each. Before them it may put prefix
tokens, which belong to no place: a class token, a distillation token, registers. A map over tokens needs both numbers.
They come from the study (`tokens: {prefix: 1, grid: [14, 14]}`), from the network's own attributes (timm, torchvision,
transformers), or from the number of tokens, where only one answer is possible.
"""

from collections.abc import Iterator, Sequence
from math import isqrt
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.types import Images
from efface.models.hook_watch import see_calls
from efface.models.layout import HALVES, halves_changed

STATED = "stated_tokens"
"""Attribute of a network that holds the `TokenGrid` that the study states."""
_PREFIXES = (0, 1, 2, 5)
_SURELY = 0.2  # mean distance of a token's share in one half of the image from the mean share
_FOLLOWS = 0.1  # share of the grid by which a change in half of the image moves the centre of the change


class TokenGrid(NamedTuple):
    """Prefix tokens, and the grid of the patches after them, row by row."""

    prefix: int
    rows: int
    columns: int

    @property
    def total(self) -> int:
        """Number of all tokens."""
        return self.prefix + self.rows * self.columns

    def __str__(self) -> str:
        prefix = "1 prefix token" if self.prefix == 1 else f"{self.prefix or 'no'} prefix tokens"
        return f"{prefix} and {self.rows} x {self.columns} patches"

    def laid_out(self, tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n c y x"]:
        """Return the values of the patch tokens as a grid, without the prefix."""
        return tokens[:, self.prefix :].unflatten(1, (self.rows, self.columns)).permute(0, 3, 1, 2)


def token_grid(model: nn.Module, images: Images, count: int | None = None) -> TokenGrid:
    """Return how the tokens of the network lie for images of this size.

    count: number of tokens, prefix included, of the layer in question; by default the number that most layers have.
        A layer with fewer patches than the network's first one, as in a Swin, has a grid of its own, after as many
        prefix tokens as the network says, or none.

    ValueError: no layer computes with tokens; what the study states does not fit their number; or their number allows
        several grids, or none.
    """
    counts = token_counts(model, images)
    if not counts:
        raise ValueError(f"{type(model).__name__} computes with no tokens: no layer returns n x tokens x channels")
    seen = _most(counts) if count is None else count
    stated, own = stated_grid(model, images), own_grid(model, images)
    if stated is not None and stated.total == seen:
        return stated
    if own is not None and own.total == seen:
        return own
    prefix = _own_prefix(model) if own is None else own.prefix if own.total in counts else None
    return _from_count(model, images, seen, _PREFIXES if prefix is None else (0, prefix))


def stated_grid(model: nn.Module, images: Images) -> TokenGrid | None:
    """Return how the study says that the tokens lie; None: it does not say.

    The statement is that of the number of tokens that most layers have, or of the number that the last blocks have, as
    where stages merge tokens or a class token joins late.

    ValueError: so many tokens do not fit the network, or it says another grid itself.
    """
    stated: TokenGrid | None = getattr(model, STATED, None)
    if stated is None:
        return None
    name, counts, own = type(model).__name__, token_counts(model, images), own_grid(model, images)
    if counts and stated.total not in (able := dict.fromkeys((_most(counts), _last(counts)))):
        raise ValueError(
            f"tokens: the study states {stated}, {stated.total} tokens in all, but the layers of {name} have "
            f"{' or '.join(map(str, able))}; correct prefix and grid"
        )
    if own is not None and own.total == stated.total and own != stated:
        raise ValueError(
            f"tokens: the study states {stated}, but {name} itself says {own}; correct prefix and grid, or drop the key"
        )
    return stated


def own_grid(model: nn.Module, images: Images) -> TokenGrid | None:
    """Return what the network's own attributes say of its tokens, for images of this size; None: they say nothing."""
    for module in model.modules():
        for read in (_of_timm, _of_torchvision, _of_transformers):
            if (found := read(module, images)) is not None:
                return found
    return None


def _most(counts: dict[int, int]) -> int:
    return max(counts, key=lambda number: counts[number])


def _last(counts: dict[int, int]) -> int:
    """Return the number of tokens that began last, of those that several layers have: not that of a pooled token."""
    return next((number for number in reversed(counts) if number > 1 and counts[number] > 1), _most(counts))


def _own_prefix(model: nn.Module) -> int | None:
    """Return how many prefix tokens a network of timm says that it has; None: it does not say."""
    stated = (getattr(module, "num_prefix_tokens", None) for module in model.modules())
    return next((number for number in stated if isinstance(number, int)), None)


def fits_a_grid(images: Images, count: int) -> bool:
    """Return True if so many tokens may be a grid of the shape of the images, after some prefix tokens."""
    height, width = images.shape[2:]
    return next(_grids(count, height, width, _PREFIXES), None) is not None


def _of_timm(module: Any, images: Images) -> TokenGrid | None:
    prefix, embed = getattr(module, "num_prefix_tokens", None), getattr(module, "patch_embed", None)
    patch, grid = getattr(embed, "patch_size", None), getattr(embed, "grid_size", None)
    if not isinstance(prefix, int) or not isinstance(patch, tuple):
        return None
    if getattr(module, "dynamic_img_size", False) or grid is None:
        pad = -1 if getattr(embed, "dynamic_img_pad", False) else 1  # a negative divisor rounds up
        grid = tuple(pad * (side // (pad * size)) for side, size in zip(images.shape[2:], patch, strict=True))
    return TokenGrid(prefix, *map(int, grid))


def _of_torchvision(module: Any, _: Images) -> TokenGrid | None:
    side, patch = getattr(module, "image_size", None), getattr(module, "patch_size", None)
    if not isinstance(side, int) or not isinstance(patch, int) or not hasattr(module, "class_token"):
        return None
    return TokenGrid(1, side // patch, side // patch)


def _of_transformers(module: Any, images: Images) -> TokenGrid | None:
    patch = getattr(getattr(module, "config", None), "patch_size", None)
    embed = getattr(module, "embeddings", None)
    if not isinstance(patch, int) or embed is None:
        return None
    tokens = [getattr(embed, name, None) for name in ("cls_token", "distillation_token", "register_tokens")]
    prefix = sum(token.shape[-2] for token in tokens if isinstance(token, Tensor) and token.ndim == 3)
    prefix += isinstance(getattr(embed, "class_embedding", None), Tensor)  # CLIP's class token, of one axis
    height, width = images.shape[2:]
    return TokenGrid(prefix, height // patch, width // patch)


_GRIDS: "WeakKeyDictionary[nn.Module, dict[tuple[int, ...], TokenGrid | str]]" = WeakKeyDictionary()


def _from_count(model: nn.Module, images: Images, count: int, prefixes: Sequence[int]) -> TokenGrid:
    """Return the only grid that so many tokens can have: of the shape of the image, after one of the prefixes.

    It costs one forward pass of five images, once for each size and count.
    """
    kept = _GRIDS.setdefault(model, {})
    seen = (*images.shape[1:], count, *prefixes)
    if seen not in kept:
        kept[seen] = _searched(model, images, count, prefixes)
    found = kept[seen]
    if isinstance(found, str):
        raise ValueError(found)
    return found


def _searched(model: nn.Module, images: Images, count: int, prefixes: Sequence[int]) -> TokenGrid | str:
    height, width = images.shape[2:]
    able = list(_grids(count, height, width, prefixes))
    name, example = type(model).__name__, able[0] if able else TokenGrid(1, 14, 14)
    written = f"{{prefix: {example.prefix}, grid: [{example.rows}, {example.columns}]}}"
    remedy = f"state them in the study, such as tokens: {written}"
    if len(able) != 1:
        what = f"can be {' or '.join(map(str, able))}" if able else "fit no grid of the shape of the image"
        return f"the {count} tokens of {name} {what}; {remedy}"
    if not _follow(model, images, able[0]):
        return f"the {count} tokens of {name} would be {able[0]}, but they do not follow the image; {remedy}"
    return able[0]


def _grids(count: int, height: int, width: int, prefixes: Sequence[int]) -> Iterator[TokenGrid]:
    for prefix in dict.fromkeys(prefixes):
        patches = count - prefix
        if patches < 1:
            continue
        rows = isqrt(patches * height // width)
        for near in (rows, rows + 1):
            if near and patches % near == 0 and patches // near * height == near * width:
                yield TokenGrid(prefix, near, patches // near)
                break


def _follow(model: nn.Module, images: Images, grid: TokenGrid) -> bool:
    """Return True if there is a layer in which a change in half of the image changes that half of the grid."""
    ways: list[tuple[float, float]] = []

    def see(_: str, _module: nn.Module, output: object) -> None:
        if not isinstance(output, Tensor) or output.ndim != 3 or output.shape[:2] != (HALVES, grid.total):
            return
        change = (output.detach()[1:] - output.detach()[:1]).abs().double()
        left, right, above, below = grid.laid_out(change).sum(1)
        across = _centre(right.sum(0)) - _centre(left.sum(0)) if grid.columns > 1 else 1.0
        ways.append((across, _centre(below.sum(1)) - _centre(above.sum(1)) if grid.rows > 1 else 1.0))

    see_calls(model, halves_changed(images[:1]), see)
    return any(min(way) > _FOLLOWS for way in ways)


def lies_elsewhere(change: Float[Tensor, "4 t"], grid: TokenGrid) -> bool:
    """Return True if the tokens surely lie in another order: halves of the image change other places of the grid.

    change: of each token with the left, right, upper and lower half of the image.
    """
    left, right, above, below = change[:, grid.prefix :].unflatten(1, (grid.rows, grid.columns))
    return _is_elsewhere(left, right) or _is_elsewhere(above.T, below.T)


def _is_elsewhere(first: Float[Tensor, "y x"], second: Float[Tensor, "y x"]) -> bool:
    both, columns = first + second, first.shape[1]
    share = torch.where(both > 0, first / both.clamp(min=1e-300), 0.5)
    share = share - share.mean()  # where all tokens follow one half more, their order says nothing
    side = torch.arange(columns - 1, -columns, -2).sign().to(share)
    own = float((share * side).mean())
    return own < (whole := float((share * side).abs().mean())) / 2 and whole > _SURELY


def _centre(values: Float[Tensor, " places"]) -> float:
    """Return the centre of non-negative values along a line, as a share of its length."""
    places = torch.linspace(0, 1, len(values), dtype=values.dtype, device=values.device)
    return float(values @ places / values.sum().clamp(min=1e-300))


_COUNTS: "WeakKeyDictionary[nn.Module, dict[tuple[int, ...], dict[int, int]]]" = WeakKeyDictionary()


def token_counts(model: nn.Module, images: Images) -> dict[int, int]:
    """Return how many layers return so many tokens. It costs one forward pass of two images, once for each size."""
    kept = _COUNTS.setdefault(model, {})
    size = tuple(images.shape[1:])
    if size not in kept:
        counts: dict[int, int] = {}

        def see(_: str, _module: nn.Module, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 3 and len(output) == 2:  # n t c
                counts[output.shape[1]] = counts.get(output.shape[1], 0) + 1

        see_calls(model, images[:1].repeat(2, 1, 1, 1), see)
        kept[size] = counts
    return kept[size]
