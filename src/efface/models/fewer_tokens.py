"""A vision transformer with a part of its patch tokens: the others are dropped after the position embedding.

A network without a token cannot react to what would stand in its place. Prefix tokens (class token, distillation token,
registers) always stay. The network must add the positions to its tokens before the first block, at a place that is
known: torchvision's VisionTransformer, timm's VisionTransformer (ViT, DeiT, DINOv2), and ViT, DeiT and DINOv2 of
transformers.

Source: Jain et al. 2022 (Missingness bias in model debugging); Blücher, Vielhaben & Strodthoff 2024 call it internal.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from efface.base.types import Images
from efface.models.evaluation import evaluating
from efface.models.hook_watch import look_before, look_in
from efface.models.patch_size import patch_size
from efface.models.tokens import TokenGrid, own_grid

Kept = Bool[Tensor, "n patches"]
"""True for each patch token that stays, row by row."""
_KNOWN = "ViT, DeiT and DINOv2 of torchvision, timm and transformers"
_EMBEDDINGS = ("ViTEmbeddings", "DeiTEmbeddings", "Dinov2Embeddings", "Dinov2WithRegistersEmbeddings")
_INSIDE = re.compile(r"relative_pos|rel_pos|relative_coords|\brope\b|rope_|rotary")


class _Place(NamedTuple):
    """A module that gets (`before`), or returns, the tokens with their positions; and the transformer that has it.

    reads_patches: True if the head pools the patch tokens by attention, which is 0 over no tokens and means nothing.
    """

    transformer: nn.Module
    module: nn.Module
    before: bool = False
    reads_patches: bool = False


class OnlyTokens:
    """Logits of a network that gets only some of its patch tokens."""

    def __init__(self, network: nn.Module, grid: TokenGrid, *, can_be_empty: bool) -> None:
        """grid: the tokens of the network. can_be_empty: False if its head surely needs a patch token."""
        self.grid, self._network, self._can_be_empty = grid, network, can_be_empty
        self._kept: Kept | None = None
        self._seen = False

    def __call__(self, images: Images, kept: Kept) -> Float[Tensor, "n k"]:
        """Return the logits of each image with the prefix tokens and the patch tokens that are kept.

        Images that keep equally many tokens run in one pass.

        ValueError: the tokens are not those of the network, or it has no logits without any patch token.
        """
        if kept.shape != (len(images), self.grid.rows * self.grid.columns):
            raise ValueError(
                f"kept has the shape {tuple(kept.shape)}; expected {(len(images), self.grid.rows * self.grid.columns)},"
                f" a value for each of {self.grid.rows} x {self.grid.columns} patches"
            )
        counts, found = kept.sum(1), None
        for count in counts.unique().tolist():
            rows = (counts == count).nonzero().flatten()
            answers = self._answers(images[rows], kept[rows], count)
            found = answers.new_empty(len(images), *answers.shape[1:]) if found is None else found
            found[rows] = answers
        assert found is not None, "there are no images"
        return found

    def _answers(self, images: Images, kept: Kept, count: int) -> Tensor:
        nothing = count == 0
        if nothing and not self._can_be_empty:
            raise ValueError(f"{self._without()} its head has nothing to read; give fractions below 1")
        self._kept, self._seen = None if count == kept.shape[1] else kept, False
        try:
            answers = self._network(images)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, IndexError) as error:
            if not nothing:
                raise
            raise ValueError(f"{self._without()} it fails ({_line(error)}); give fractions below 1") from error
        finally:
            self._kept = None
        if not self._seen:
            raise ValueError(f"{type(self._network).__name__} did not run the layer whose tokens are dropped")
        if nothing and not answers.isfinite().all():
            raise ValueError(
                f"{self._without()} its logits are not finite, because its head reads the mean of the patch tokens; "
                "give fractions below 1"
            )
        return answers

    def _without(self) -> str:
        return f"{type(self._network).__name__} needs a patch token: without any of them"

    def part(self, tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n t2 c"]:
        """Return the tokens that stay, prefix first, in their order."""
        self._seen, (prefix, _, _), kept = True, self.grid, self._kept
        if tokens.ndim != 3 or tokens.shape[1] != self.grid.total:
            raise ValueError(
                f"{type(self._network).__name__} has {tuple(tokens.shape[1:-1])} tokens; expected {self.grid}"
            )
        if kept is None:
            return tokens
        places = kept.nonzero()[:, 1].reshape(len(kept), -1) + prefix
        places = torch.cat([torch.arange(prefix, device=places.device).expand(len(kept), -1), places], 1)
        return tokens.gather(1, places[:, :, None].expand(-1, -1, tokens.shape[2]))


@contextmanager
def fewer_tokens(network: nn.Module, images: Images) -> Iterator[OnlyTokens]:
    """Yield a function (images, kept) -> logits of the network with only these patch tokens.

    After the block, also after an exception, the network is as it was.

    images: of the size that will be asked.
    ValueError: it is not known where the network adds its positions.
    """
    place, grid = _place_of(network, images)
    only = OnlyTokens(network, grid, can_be_empty=grid.prefix > 0 and not place.reads_patches)
    if place.before:
        handle = look_before(place.module, lambda _, inputs: (only.part(inputs[0]), *inputs[1:]))
    else:
        handle = look_in(place.module, lambda _module, _inputs, output: only.part(output))
    try:
        yield only
    finally:
        handle.remove()


def check_fewer_tokens(network: nn.Module, images: Images) -> None:
    """Raise ValueError if the tokens of this network cannot be dropped.

    Two facts are tried on the images: with all tokens the logits are those of the network; and the pixels of dropped
    patches do not change the logits. It costs four forward passes of the images.
    """
    with evaluating(network), torch.no_grad(), fewer_tokens(network, images) as only:
        _, rows, columns = only.grid
        half = (torch.arange(rows)[:, None] + torch.arange(columns)) % 2 == 0
        tall, wide = patch_size(network, images)
        seen = half.repeat_interleave(tall, 0).repeat_interleave(wide, 1)[: images.shape[2], : images.shape[3]]
        if seen.shape != images.shape[2:]:
            raise ValueError(f"{only.grid} of {tall} x {wide} pixels do not cover images of {tuple(images.shape[2:])}")
        kept = half.flatten().to(images.device).expand(len(images), -1)
        whole, same = network(images), only(images, torch.ones_like(kept))
        changed = torch.where(seen.to(images.device), images, (images + 0.5) % 1)
        parts = only(images, kept), only(changed, kept)
    if not torch.allclose(whole, same, rtol=1e-4, atol=1e-5):
        raise ValueError(f"{type(network).__name__} answers otherwise when its tokens pass through a hook")
    if not torch.allclose(*parts, rtol=1e-4, atol=1e-5):
        raise ValueError(
            f"the logits of {type(network).__name__} depend on the pixels of patches whose tokens are dropped, so its "
            "tokens are mixed before the position embedding"
        )


def _place_of(network: nn.Module, images: Images) -> tuple[_Place, TokenGrid]:
    """Return where the tokens have their positions, and how they lie."""
    found = [place for module in network.modules() if (place := _known_place(module)) is not None]
    if len(found) != 1:
        raise ValueError(_why_not(network, len(found)))
    grid = own_grid(found[0].transformer, images)
    if grid is None:
        raise ValueError(f"{type(network).__name__} does not say in which grid its patches lie")
    return found[0], grid


def _known_place(module: Any) -> _Place | None:
    if _is(module, "torchvision.models.vision_transformer", "VisionTransformer"):
        return _Place(module, module.encoder.layers, before=True)
    if _is(module, "timm.models.vision_transformer", "VisionTransformer"):
        pooled = getattr(module, "attn_pool", None) is not None and not getattr(module, "pool_include_prefix", False)
        return _Place(module, module.patch_drop, reads_patches=pooled)
    embeddings = getattr(module, "embeddings", None)
    known = any(_is(embeddings, "transformers.models.", name) for name in _EMBEDDINGS)
    return _Place(module, embeddings) if known and isinstance(embeddings, nn.Module) else None


def _is(module: object, package: str, name: str) -> bool:
    """Return whether a class of this name in this package, or one that is derived from it, made the module."""
    return any(kind.__qualname__ == name and kind.__module__.startswith(package) for kind in type(module).__mro__)


def _why_not(network: nn.Module, count: int) -> str:
    name = type(network).__name__
    if count > 1:
        return f"{name} has {count} transformers, so it is not known whose tokens are dropped"
    names = [*dict(network.named_modules()), *dict(network.named_parameters()), *dict(network.named_buffers())]
    if inside := next((part for part in names if _INSIDE.search(part)), ""):
        return f"{name} adds its positions inside the attention ({inside}); known are {_KNOWN}"
    if not any("attention" in type(module).__name__.lower() for module in network.modules()):
        return f"{name} has no attention, so it needs all places of its grid; known are {_KNOWN}"
    return f"it is not known where {name} adds positions to its tokens; known are {_KNOWN}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
